"""The figures of a sweep: a heat map of two keys, a scatter plot of a search, learning curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dreamerjax.study.run_metrics import format_number
from dreamerjax.study.sweep_plan import shown_value
from dreamerjax.study.sweep_result import PointResult, RunCurve, SweepResult

matplotlib.use("Agg")  # draw to files, without a display

MAX_PANELS = 6  # of learning curves


def draw_sweep(result: SweepResult, folder: Path) -> list[str]:
    """Draws the figures for the kind of sweep into its folder; returns the file names.

    Raises:
        OSError: a file cannot be written.
    """
    plan, drawn = result.plan, []
    if len(plan.over) == 2 and plan.kind != "search":
        _heat_map(result, folder / "heat_map.png")
        drawn.append("heat_map.png")
    elif plan.kind == "search":
        _scatter(result, folder / "points.png")
        drawn.append("points.png")
    if any(each.ended for each in result.points):
        _curves(result, folder / "curves.png")
        drawn.append("curves.png")
    return drawn


def _heat_map(result: SweepResult, file: Path) -> None:
    """Draws peak and final return on one colour scale, and the metric if it is neither of them."""
    plan = result.plan
    (row_key, row_values), (column_key, column_values) = plan.over.items()
    shape = (len(row_values), len(column_values))
    values = {"peak return": [each.peak for each in result.points], "final return": [e.final for e in result.points]}
    if plan.metric not in ("peak_return", "final_return"):
        values[plan.metric] = [each.mean for each in result.points]
    figure = Figure(figsize=(1.8 + (0.8 + 0.8 * shape[1]) * len(values), 1.4 + 0.75 * shape[0]), layout="constrained")
    panels = figure.subplots(1, len(values), sharex=True, sharey=True, squeeze=False)[0]
    scales = _scales(values)
    for axes, (title, each) in zip(panels, values.items(), strict=True):
        _cells(axes, np.array(each).reshape(shape), scales[title])
        axes.set_xticks(range(shape[1]), [shown_value(value) for value in column_values])
        axes.set_yticks(range(shape[0]), [shown_value(value) for value in row_values])
        axes.set_xlabel(column_key.removeprefix("agent."))
        axes.set_title(title, fontsize="medium", parse_math=False)
    panels[0].set_ylabel(row_key.removeprefix("agent."))
    figure.colorbar(ScalarMappable(scales["final return"], "viridis"), ax=panels[:2], label="greedy return")
    for axes, title in zip(panels[2:], list(values)[2:], strict=True):
        figure.colorbar(ScalarMappable(scales[title], "viridis"), ax=axes, label=title)
    figure.savefig(file, dpi=110)


def _scales(values: Mapping[str, Sequence[float]]) -> dict[str, Normalize]:
    """Title -> colour scale; both returns share one."""

    def scale(*columns: Sequence[float]) -> Normalize:
        finite = [x for column in columns for x in column if np.isfinite(x)] or [0.0]
        return Normalize(min(finite), max(finite))

    both = scale(values["peak return"], values["final return"])
    return {title: both if title.endswith(" return") else scale(column) for title, column in values.items()}


def _cells(axes: Axes, values: np.ndarray, scale: Normalize) -> None:
    axes.imshow(values, cmap="viridis", aspect="auto", norm=scale)
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        color = "w" if np.isfinite(value) and scale(value) < 0.5 else "k"
        axes.text(column, row, format_number(value), ha="center", va="center", color=color)


def _curves(result: SweepResult, file: Path) -> None:
    """Draws learning curves: one panel for each value of the first key, one colour for each value of the others."""
    keys = list(result.plan.over)
    panels_of: dict[Any, list[PointResult]] = {}
    for each in result.points:
        if each.ended:
            panels_of.setdefault(each.point[keys[0]] if len(keys) > 1 else "", []).append(each)
    shown_panels = list(panels_of.items())[:MAX_PANELS]
    figure = Figure(figsize=(2.0 + 3.2 * len(shown_panels), 3.4), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(shown_panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (value, points) in zip(panels, shown_panels, strict=True):
        for number, each in enumerate(points):
            rest = {key: x for key, x in each.point.items() if key != keys[0] or len(keys) == 1}
            color = matplotlib.colormaps["viridis"](number / max(1, len(points) - 1) * 0.9)
            _draw_point(axes, each.runs, color=color, label=", ".join(shown_value(x) for x in rest.values()))
        if len(keys) > 1:
            axes.set_title(f"{keys[0].removeprefix('agent.')} {shown_value(value)}", fontsize="small")
        axes.set_xlabel(result.unit)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("greedy return")
    title = ", ".join(key.removeprefix("agent.") for key in (keys[1:] or keys))
    panels[-1].legend(frameon=False, fontsize="x-small", title=title, title_fontsize="x-small", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=110)


def _draw_point(axes: Axes, runs: Sequence[RunCurve], *, color: Any, label: str) -> None:
    """Draws the mean of the seeds at their common steps, and each seed as a thin line to its end."""
    by_step = [dict(zip(run.steps.tolist(), run.returns.tolist(), strict=True)) for run in runs]
    steps = sorted(set.intersection(*map(set, by_step)))
    returns = np.array([[one[step] for step in steps] for one in by_step])  # [seeds, steps]
    if len(runs) > 1:
        for run in runs:
            axes.plot(run.steps, run.returns, color=color, alpha=0.35, linewidth=0.7)
    axes.plot(steps, returns.mean(0), color=color, linewidth=1.6, label=label)


def _scatter(result: SweepResult, file: Path) -> None:
    """Draws the metric against each key."""
    keys = list(result.plan.over)
    ended = [each for each in result.points if each.values]
    figure = Figure(figsize=(1.0 + 3.2 * len(keys), 3.2), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        choices = result.plan.over[key]
        for each in ended:
            axes.plot([each.point[key]] * len(each.values), each.values, "o", color="C0", markersize=3, alpha=0.6)
        if getattr(choices, "log", False):
            axes.set_xscale("log")
        axes.set_xlabel(key.removeprefix("agent."), fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(result.plan.metric)
    figure.savefig(file, dpi=110)
