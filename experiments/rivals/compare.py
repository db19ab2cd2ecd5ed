"""Times dreamerjax and other DreamerV3 implementations on this machine: the same work in turn, with ratios and spread.

    python experiments/rivals/compare.py --authors CLONE [--r2dreamer CLONE] [--torchrl] [--size 1m ...] [--image]

Each implementation is a process in a separate virtual environment (`--authors-python` and so on: see README.md here).
All processes stay alive; in each round, every one makes a few updates in turn, so that changes of the machine's speed
affect all of them. Memory preallocation is off, so that the processes can share a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = "dreamerjax"


class Process:
    """A running adapter: see adapter_protocol.py."""

    def __init__(self, name: str, python: str, script: str, arguments: list[str], deadline: float) -> None:
        """Starts it; `ready` waits until it has compiled and warmed up. At the deadline it is killed."""
        self.name = name
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        with open(f"{name}.log", "w") as log:
            self._process = subprocess.Popen(
                [python, str(HERE / script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._process.kill)
        self._timer.start()

    def ready(self) -> dict[str, Any] | None:
        """Its description of itself; None if it cannot do this work."""
        return self._answer()

    def time(self, updates: int) -> dict[str, Any] | None:
        """Seconds of each update; None if it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{updates}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._answer()

    def close(self) -> None:
        """Ends it."""
        self._timer.cancel()
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None


def compare(
    processes: list[Process], *, rounds: int, updates: int, deadline: float
) -> tuple[dict[str, dict[str, Any]], dict[str, list[float]]]:
    """The description of each, and its milliseconds per update, one median for each round."""
    facts = {process.name: said for process in processes if (said := process.ready())}
    alive = [process for process in processes if process.name in facts]
    medians: dict[str, list[float]] = {process.name: [] for process in alive}
    for index in range(rounds):
        if time.monotonic() > deadline:
            print(f"out of time after {index} rounds", file=sys.stderr)
            break
        for process in alive:
            if answer := process.time(updates):
                medians[process.name].append(1e3 * statistics.median(answer["seconds"]))
                facts[process.name]["peak_memory_mb"] = answer["peak_memory_mb"]
    return facts, medians


def report(facts: dict[str, dict[str, Any]], medians: dict[str, list[float]]) -> str:
    """A Markdown table: milliseconds and ratios to dreamerjax within each round, median (lowest to highest)."""
    lines = [
        "| implementation | version | ms per update | time relative to dreamerjax | memory MB |",
        "|---|---|---|---|---|",
    ]
    for name, values in medians.items():
        if not values:
            continue
        ratios = [theirs / ours for theirs, ours in zip(values, medians.get(OURS, []), strict=False)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
        of = facts[name]
        cost = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        lines.append(f"| {of['name']} | {of['version']} | {cost} | {spread} | {of['peak_memory_mb']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Runs every requested size and prints a table for each; `--json FILE` stores all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=["1m"])
    parser.add_argument("--image", action="store_true", help="64x64x3 images instead of a vector of 4")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4, help="of each implementation in each round")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the whole comparison, at most")
    parser.add_argument("--json", type=Path)
    for rival in ("authors", "r2dreamer"):
        parser.add_argument(f"--{rival}", type=Path, metavar="CLONE")
        parser.add_argument(f"--{rival}-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--torchrl", action="store_true")
    parser.add_argument("--torchrl-python", default=sys.executable, metavar="PYTHON")
    given = parser.parse_args()

    deadline = time.monotonic() + 60 * given.minutes
    kept = []
    for size in given.size:
        if time.monotonic() > deadline:
            print(f"out of time before size {size}", file=sys.stderr)
            break
        common = [f"--size={size}", f"--device={given.device}", f"--precision={given.precision}"]
        common += [f"--batch={given.batch}", f"--length={given.length}", *(["--image"] if given.image else [])]
        processes = [Process(OURS, sys.executable, "dreamerjax_ours.py", common, deadline)]
        if given.authors:
            source = [f"--source={given.authors}"]
            processes.append(Process("authors", given.authors_python, "authors.py", common + source, deadline))
        if given.r2dreamer:
            source = [f"--source={given.r2dreamer}"]
            processes.append(Process("r2dreamer", given.r2dreamer_python, "r2dreamer.py", common + source, deadline))
        if given.torchrl:
            processes.append(Process("torchrl", given.torchrl_python, "torchrl_dreamer.py", common, deadline))
        try:
            facts, medians = compare(processes, rounds=given.rounds, updates=given.updates, deadline=deadline)
        finally:
            for process in processes:
                process.close()
        work = f"size {size}, {given.batch} x {given.length} rows, {'image' if given.image else 'vector'}"
        print(f"\n{work}, {given.precision}, {given.device}\n\n{report(facts, medians)}", flush=True)
        kept.append({"work": work, "facts": facts, "milliseconds": medians})
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
