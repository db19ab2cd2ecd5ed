"""Checks that two runs are equal to the last digit, except for times and memory: `same_metrics.py RUN RUN`.

For a change that must not change behaviour: run the same command before and after it, on the same machine. If the runs
differ, prints the first line that differs and exits with code 1.
"""

import json
import sys
from pathlib import Path
from typing import Any

MEASURED = ("speed/", "wall_seconds", "time/")  # depend on the clock or the machine


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without the values that depend on the clock or the machine."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if not key.startswith(MEASURED)} for line in lines]


def main(first: Path, second: Path) -> int:
    """Prints the first difference, or the number of equal lines."""
    here, there = lines_of(first), lines_of(second)
    for number, (one, other) in enumerate(zip(here, there, strict=False), 1):
        keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        if keys:
            print(f"Line {number}: {keys[0]} is {one.get(keys[0])} and {other.get(keys[0])}; {len(keys)} keys differ.")
            return 1
    if len(here) != len(there):
        print(f"The runs have {len(here)} and {len(there)} lines; the first {min(len(here), len(there))} are equal.")
        return 1
    print(f"{len(here)} lines, all equal.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
