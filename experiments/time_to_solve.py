"""Time to solve CartPole against batch, sequence and train ratio: many runs, one on each core, as a table.

    python experiments/time_to_solve.py OUT.json --points 8x32@32 16x32@64 --seeds 0 1 2 --limit 200

A point is BATCHxSEQUENCE@RATIO. A run that is not solved within `--limit` seconds is stopped and counts as that long.
Runs that are already in OUT.json are not repeated; `--plot FILE.png` draws all runs in it.
"""

import argparse
import concurrent.futures
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(point: str, seed: int, core: int, limit: float) -> dict[str, Any]:
    """Runs one training on one core; its seconds from the start of the process to solved, steps and updates."""
    batch, rest = point.split("x")
    sequence, ratio = rest.split("@")
    folder = Path(tempfile.mkdtemp(prefix="time-to-solve-"))
    command = [
        "taskset",
        "-c",
        str(core),
        sys.executable,
        str(ROOT / "run.py"),
        "--env",
        "cartpole",
        "--backend",
        "cpu",
    ]
    command += ["--seed", str(seed), "--run-dir", str(folder / "run"), "--train.batch-size", batch]
    command += ["--train.sequence-length", sequence, "--train-ratio", ratio]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    seconds = time.monotonic() - begun
    result: dict[str, Any] = {"point": point, "seed": seed, "seconds": seconds, "solved": False}
    summary = folder / "run" / "summary.json"
    if summary.exists():
        said = json.loads(summary.read_text())
        result |= {name: said[name] for name in ("solved", "env_steps", "updates")}
    shutil.rmtree(folder)
    return result


def table(results: list[dict[str, Any]], limit: float) -> str:
    """One row per point, fastest median first; an unsolved run counts as the limit."""
    rows = []
    for point in {result["point"]: None for result in results}:
        of = [result for result in results if result["point"] == point]
        seconds = sorted(result["seconds"] if result["solved"] else limit for result in of)
        steps = [result["env_steps"] for result in of if result["solved"]]
        rows.append((statistics.median(seconds), point, sum(r["solved"] for r in of), seconds, steps))
    lines = ["| batch x sequence @ ratio | solved | seconds, median (each) | steps, median |", "|---|---|---|---|"]
    for median, point, solved, seconds, steps in sorted(rows):
        each = ", ".join(f"{value:.0f}" for value in seconds)
        middle = f"{statistics.median(steps):,.0f}" if steps else "-"
        lines.append(f"| {point} | {solved} of {len(seconds)} | {median:.0f} ({each}) | {middle} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], limit: float, file: Path) -> None:
    """Every run as a dot, the median as a bar; crosses are unsolved runs."""
    from matplotlib import pyplot

    by_point: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_point.setdefault(result["point"], []).append(result)

    def cost(result: dict[str, Any]) -> float:
        return result["seconds"] if result["solved"] else limit

    order = sorted(by_point, key=lambda point: statistics.median(map(cost, by_point[point])))
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.4 * len(order)), layout="constrained")
    for height, point in enumerate(order):
        axes.barh(height, statistics.median(map(cost, by_point[point])), color="#9ec5e8", height=0.7)
        for result in by_point[point]:
            axes.plot(cost(result), height, "o" if result["solved"] else "x", color="#1f4e79")
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds from the start of the process to solved, one core per run (x: not within {limit:.0f})")
    axes.set_ylabel("batch x sequence @ train ratio")
    figure.savefig(file, dpi=120)


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--points", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--limit", type=float, default=200.0, help="seconds per run (default: 200)")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()

    results = json.loads(given.file.read_text()) if given.file.exists() else []
    made = {(result["point"], result["seed"]) for result in results}
    wanted = [(point, seed) for seed in given.seeds for point in given.points if (point, seed) not in made]
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def on_a_free_core(point: str, seed: int) -> None:
        core = cores.get()
        result = run(point, seed, core, given.limit)
        cores.put(core)
        results.append(result)
        given.file.write_text(json.dumps(results, indent=1))
        print(result, flush=True)

    with concurrent.futures.ThreadPoolExecutor(cores.qsize()) as pool:
        for future in [pool.submit(on_a_free_core, *one) for one in wanted]:
            future.result()
    print(table(results, given.limit))
    if given.plot:
        plot(results, given.limit, given.plot)


if __name__ == "__main__":
    main()
