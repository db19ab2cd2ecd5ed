"""Draws the memory of training runs over their environment steps.

    python experiments/memory_curve.py FILE.png RUN [RUN ...]

A long run to draw: python run.py --env cartpole --no-stop-when-solved --env-steps 100000 --train-ratio 4 --run-dir RUN
"""

import argparse
import sys
from pathlib import Path

from matplotlib import pyplot

sys.path.insert(0, str(Path(__file__).parents[1]))

from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder


def main() -> None:
    """Draws one curve per run, labelled with its folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for run in given.runs:
        rows = [row for row in read_metrics(RunFolder(run).metrics_path) if "speed/memory_mb" in row]
        steps, memory = [row["step"] / 1000 for row in rows], [row["speed/memory_mb"] for row in rows]
        axes.plot(steps, memory, label=run.name)
        print(f"{run}: {memory[0]:.0f} MB at the start, {max(memory):.0f} at most, {memory[-1]:.0f} at the end")
    axes.set(xlabel="thousand environment steps", ylabel="memory of the process, MB", ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(given.file, dpi=120)


if __name__ == "__main__":
    main()
