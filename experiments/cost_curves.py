"""Sweeps of the bench: time and memory of an update against model size, batch, sequence, horizon and more.

    python experiments/cost_curves.py OUT.json --plot FILE.png
    python experiments/cost_curves.py OUT.json --plot FILE.png --only size batch --backend cuda --sizes 1m 12m 50m 200m

Sweeps that are already in OUT.json are not repeated. Prints a table for each sweep.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
SHORT = "batch, sequence 25"  # drawn in the same axes as the batches of full length
BLUE = "#1f4e79"


class Sweep(NamedTuple):
    """One setting that varies while the others are constant."""

    key: str  # for `bench --sweep`
    values: tuple[str, ...]
    flags: tuple[str, ...] = ()  # for every point
    parts: tuple[str, ...] = ()  # of the bench's `parts_ms`: drawn instead of the whole update


def sweeps(sizes: list[str]) -> dict[str, Sweep]:
    """All sweeps; the model sizes use one update per dispatch, so that a point takes minutes, not hours."""
    batches = ("8", "16", "32", "64", "128")
    return {
        "size": Sweep("size", tuple(sizes), ("--updates-per-dispatch=1", "--rounds=3")),
        "batch": Sweep("batch-size", batches),
        SHORT: Sweep("batch-size", batches, ("--sequence-length=25",)),
        "sequence": Sweep("sequence-length", ("16", "32", "64", "128")),
        "horizon": Sweep("horizon", ("5", "10", "15", "30")),
        "rows stored": Sweep("replay-rows", ("10000", "100000", "1000000")),
        "environments": Sweep("num-envs", ("1", "4", "16", "64"), parts=("policy_step", "env_step")),
    }


def measure(sweep: Sweep, backend: str) -> dict[str, Any]:
    """Value -> the bench's result."""
    command = [sys.executable, str(ROOT / "run.py"), "bench", "--json", f"--backend={backend}", *sweep.flags]
    command += ["--sweep", f"{sweep.key}={','.join(sweep.values)}"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode not in (0, 1):  # 1: a point failed; its entry has the error
        sys.exit(done.returncode)
    return dict(zip(sweep.values, json.loads(done.stdout), strict=True))


def milliseconds(result: dict[str, Any], parts: tuple[str, ...]) -> float:
    """Median time of the update, or the sum of the medians of these parts."""
    return sum(result["parts_ms"][name]["median"] for name in parts) if parts else result["update_ms"]["median"]


def table(name: str, sweep: Sweep, results: dict[str, Any]) -> str:
    """One row per value. `data`: time to draw and move a batch, as a share of the update."""
    lines = [
        f"\n{name}\n",
        "| value | updates/s | rows/s | GFLOP | share of peak | data | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for value, result in results.items():
        if "error" in result:
            lines.append(f"| {value} | {result['error']} |")
            continue
        median = {name: x["median"] for name, x in result.items() if isinstance(x, dict) and "median" in x}
        data = milliseconds(result, ("host_sampling", "transfer")) / median["update_ms"]
        cells = (
            value,
            f"{median['updates_per_second']:.3g}",
            f"{median['transitions_per_second']:,.0f}",
            f"{result['gflop_per_update']:.3g}",
            f"{median['share_of_peak']:.1%}",
            f"{data:.2%}",
            f"{result['peak_memory_mb']:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(everything: dict[str, dict[str, Any]], known: dict[str, Sweep], file: Path) -> None:
    """Time above, memory below, one column per setting."""
    from matplotlib import pyplot

    columns = [name for name in known if name in everything and name != SHORT]
    count = len(columns)
    figure, grid = pyplot.subplots(2, count, figsize=(2.6 * count, 4.8), layout="constrained", squeeze=False)
    for (above, below), name in zip(grid.T, columns, strict=True):
        draw(above, below, known[name], everything[name], label="64 rows" if name == "batch" else None)
        if name == "batch" and SHORT in everything:
            draw(above, below, known[SHORT], everything[SHORT], color="#d1795f", label="25 rows")
            above.legend(frameon=False, fontsize=8, loc="upper left")
        above.set_title(name, fontsize=10)
        above.set_ylabel("ms per step of policy and environments" if known[name].parts else "ms per update", fontsize=8)
        below.set_xlabel("million parameters" if known[name].key == "size" else name, fontsize=8)
        if name in ("rows stored", "environments"):
            above.set_xscale("log")
            below.set_xscale("log")
    for axes in grid.flat:
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    grid[1, 0].set_ylabel("peak memory, MB", fontsize=8)
    figure.savefig(file, dpi=120)


def draw(
    above: Any, below: Any, sweep: Sweep, results: dict[str, Any], *, color: str = BLUE, label: str | None = None
) -> None:
    """Draws one curve of time and one of memory, without failed points."""
    good = {value: result for value, result in results.items() if "error" not in result}
    by_size = sweep.key == "size"
    across = [result["parameters"] / 1e6 if by_size else float(value) for value, result in good.items()]
    above.plot(across, [milliseconds(x, sweep.parts) for x in good.values()], "o-", color=color, label=label, ms=3)
    below.plot(across, [x["peak_memory_mb"] for x in good.values()], "o-", color=color, ms=3)


def main() -> None:
    """Runs the missing sweeps and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these sweeps")
    parser.add_argument("--sizes", nargs="*", default=["300k", "1m", "12m", "25m"])
    parser.add_argument("--backend", default="auto")
    given = parser.parse_args()

    known = sweeps(given.sizes)
    results = json.loads(given.file.read_text()) if given.file.exists() else {}
    for name, sweep in known.items():
        if name not in results and (not given.only or name in given.only):
            results[name] = measure(sweep, given.backend)
            given.file.write_text(json.dumps(results, indent=1))
    for name, of in results.items():
        print(table(name, known[name], of))
    if given.plot:
        plot(results, known, given.plot)


if __name__ == "__main__":
    main()
