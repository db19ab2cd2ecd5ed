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
MINUTE = 60.0  # seconds


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
        rows = read_metrics(run_dir / "metrics.jsonl")
        draw_returns(axes, rows, color=f"C{index}", greedy=f"{run_dir.name}: greedy")
    finish_returns(axes, solve_return=solve_return)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)  # the name of a folder is no formula
    figure.savefig(file, dpi=120)


def draw_returns(
    axes: Axes,
    rows: list[dict[str, Any]],
    *,
    color: str = "C0",
    greedy: str = "greedy, with its spread",
    training: str = "",
    over: str = "step",
) -> None:
    """Draws the returns of one run: of training faint and smoothed, of greedy evaluations with their spread.

    Args:
        axes: where to draw.
        rows: of `read_metrics`.
        color: of the run.
        greedy: the label of its evaluations.
        training: the label of its training episodes; empty: none.
        over: "step", or "wall_seconds", which is drawn in minutes.
    """
    unit = MINUTE if over == "wall_seconds" else 1.0
    at, returns = series(rows, "episode/return", over=over)
    if len(returns) >= EPISODES_SMOOTHED:
        kernel = np.ones(EPISODES_SMOOTHED) / EPISODES_SMOOTHED
        smooth = np.convolve(returns, kernel, mode="valid")
        label = training or None
        axes.plot(at[EPISODES_SMOOTHED - 1 :] / unit, smooth, color=color, alpha=0.4, linewidth=1, label=label)
    at, means = series(rows, "eval/return_mean", over=over)
    _, stds = series(rows, "eval/return_std")
    axes.fill_between(at / unit, means - stds, means + stds, color=color, alpha=0.12, linewidth=0)
    axes.plot(at / unit, means, color=color, marker="o", markersize=2.5, linewidth=1.6, label=greedy)


def finish_returns(axes: Axes, *, solve_return: float | None, over: str = "step") -> None:
    """Names the axes, and draws what counts as solved as a line."""
    if solve_return is not None:
        axes.axhline(solve_return, color="0.4", linestyle="--", linewidth=1, label=f"solved: {solve_return:g}")
    axes.set(xlabel="environment steps" if over == "step" else "minutes", ylabel="episode return")
    axes.margins(x=0.01)


def series(rows: list[dict[str, Any]], key: str, *, over: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """A metric over environment steps (or another key that every line has), from the lines that have it: [n], [n]."""
    points = [(row[over], row[key]) for row in rows if key in row]
    return np.array([at for at, _ in points]), np.array([value for _, value in points])
