"""Draws the learning curves of one or more runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder

matplotlib.use("Agg")  # draw to files, without a display

EPISODES_SMOOTHED = 10
MINUTE = 60.0  # seconds


def learning_curve(run_dirs: Sequence[Path], file: Path, *, solve_return: float | None = None) -> None:
    """Draws training and evaluation returns over environment steps, one colour for each run.

    Args:
        run_dirs: folders with a metrics.jsonl.
        file: PNG to write.
        solve_return: drawn as a line, unless None.

    Raises:
        OSError: a file cannot be read or written.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, run_dir in enumerate(run_dirs):
        rows = read_metrics(RunFolder(run_dir).metrics_path)
        draw_returns(axes, rows, color=f"C{index}", greedy=f"{run_dir.name}: greedy")
    finish_returns(axes, solve_return=solve_return)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)  # folder names are not formulas
    figure.savefig(file, dpi=120)


def draw_returns(
    axes: Axes,
    rows: list[dict[str, Any]],
    *,
    color: str = "C0",
    greedy: str = "greedy, ± 1 std",
    training: str = "",
    over: str = "step",
) -> None:
    """Draws the returns of one run: training episodes faint and smoothed, greedy evaluations with standard deviation.

    Fewer than `EPISODES_SMOOTHED` training episodes are drawn as dots; `training_caption` describes what is drawn.

    Args:
        axes: where to draw.
        rows: of `read_metrics`.
        color: of the run.
        greedy: the label of the evaluations.
        training: the label of the training episodes; empty: no label.
        over: the x axis: "step", or "wall_seconds", which is drawn in minutes.
    """
    unit = MINUTE if over == "wall_seconds" else 1.0
    at, returns, smoothed = _training(rows, over)
    if len(returns):
        form = "-" if smoothed else "."
        axes.plot(at / unit, returns, form, color=color, alpha=0.4, linewidth=1, markersize=4, label=training or None)
    at, means = series(rows, "eval/return_mean", over=over)
    _, stds = series(rows, "eval/return_std")
    axes.fill_between(at / unit, means - stds, means + stds, color=color, alpha=0.12, linewidth=0)
    axes.plot(at / unit, means, color=color, marker="o", markersize=2.5, linewidth=1.6, label=greedy)


def return_limits(rows: list[dict[str, Any]], solve_return: float | None) -> tuple[float, float]:
    """Common limits of the return axis for all charts of these rows."""
    shown = [] if solve_return is None else [solve_return]
    for row in rows:
        if "eval/return_mean" in row:
            mean, std = row["eval/return_mean"], row.get("eval/return_std", 0.0)
            shown += [mean - std, mean + std]
    finite = np.array([x for x in (*shown, *_training(rows, "step")[1]) if np.isfinite(x)] or [0.0])
    margin = 0.05 * float(np.ptp(finite)) or 1.0
    return float(finite.min()) - margin, float(finite.max()) + margin


def training_caption(rows: list[dict[str, Any]]) -> str:
    """A sentence on how `draw_returns` draws the training episodes of a run."""
    count = len(series(rows, "episode/return")[1])
    if count >= EPISODES_SMOOTHED:
        return f"Faint line: {count:,} training episodes, moving average over {EPISODES_SMOOTHED}."
    if count:
        return f"Faint dots: {count} training episode{'s' if count > 1 else ''}, too few for a moving average."
    return "No training episode has ended yet."


def finish_returns(axes: Axes, *, solve_return: float | None, over: str = "step") -> None:
    """Labels the axes and draws the return that counts as solved."""
    if solve_return is not None:
        axes.axhline(solve_return, color="0.4", linestyle="--", linewidth=1, label=f"solved: {solve_return:g}")
    axes.set(xlabel="environment steps" if over == "step" else "minutes", ylabel="episode return")
    axes.margins(x=0.01)


def _training(rows: list[dict[str, Any]], over: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Positions [n] and returns [n] of the training episodes to draw, and whether they are smoothed."""
    at, returns = series(rows, "episode/return", over=over)
    if len(returns) < EPISODES_SMOOTHED:
        return at, returns, False
    kernel = np.ones(EPISODES_SMOOTHED) / EPISODES_SMOOTHED
    return at[EPISODES_SMOOTHED - 1 :], np.convolve(returns, kernel, mode="valid"), True


def series(rows: list[dict[str, Any]], key: str, *, over: str = "step") -> tuple[np.ndarray, np.ndarray]:
    """Environment steps (or another key that every line has) and values of a metric: [n], [n]."""
    points = [(row[over], row[key]) for row in rows if key in row]
    return np.array([at for at, _ in points]), np.array([value for _, value in points])
