"""The learning curve of one or more runs, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamerjax.host.metrics import read_metrics

matplotlib.use("Agg")  # pictures go to files; no window is needed

EPISODES_SMOOTHED = 10


def learning_curve(run_dirs: Sequence[Path], file: Path, *, solve_return: float | None = None) -> None:
    """Draws training and evaluation returns over environment steps, one colour for each run.

    Args:
        run_dirs: folders with a metrics.jsonl.
        file: PNG to write.
        solve_return: drawn as a line, if there is one.

    Raises:
        OSError: a file cannot be read or written.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, run_dir in enumerate(run_dirs):
        _draw_run(axes, read_metrics(run_dir / "metrics.jsonl"), run_dir.name, color=f"C{index}")
    if solve_return is not None:
        axes.axhline(solve_return, color="0.4", linestyle="--", linewidth=1, label=f"solved: {solve_return:g}")
    axes.set(xlabel="environment steps", ylabel="episode return")
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(file, dpi=120)


def _draw_run(axes: Axes, rows: list[dict[str, Any]], name: str, *, color: str) -> None:
    steps, returns = _series(rows, "episode/return")
    if len(returns) >= EPISODES_SMOOTHED:
        kernel = np.ones(EPISODES_SMOOTHED) / EPISODES_SMOOTHED
        smooth = np.convolve(returns, kernel, mode="valid")
        axes.plot(steps[EPISODES_SMOOTHED - 1 :], smooth, color=color, alpha=0.4, linewidth=1)
    steps, means = _series(rows, "eval/return_mean")
    _, stds = _series(rows, "eval/return_std")
    axes.fill_between(steps, means - stds, means + stds, color=color, alpha=0.12, linewidth=0)
    axes.plot(steps, means, color=color, marker="o", markersize=2.5, linewidth=1.6, label=f"{name}: greedy")


def _series(rows: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[key]) for row in rows if key in row]
    return np.array([step for step, _ in points]), np.array([value for _, value in points])
