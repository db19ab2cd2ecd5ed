"""The report of a sweep: REPORT.md, a heat map or curves, result.json."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamerjax.host.reporter import git_commit
from dreamerjax.lab.outcomes import shown, what_it_is
from dreamerjax.lab.sweep_plan import Point, SweepPlan, shown_value

matplotlib.use("Agg")  # pictures go to files; no window is needed

FALLEN = 0.2  # of the way from the lowest to the highest return, below the peak at the end: a decline
RISING = 0.1  # of that way, from the middle third to the last
FLAT = 0.05  # of the peak: all returns lie within it


class PointResult(NamedTuple):
    """What a point of the sweep came to."""

    point: Point
    values: tuple[float, ...]  # the metric by seed; of a population: the mean of the last two evaluations
    curves: np.ndarray | None  # [seeds, evaluations] greedy returns, where all seeds have the same
    pruned_at: int | None = None  # environment steps

    @property
    def mean(self) -> float:
        """Over the seeds; NaN if it was pruned."""
        return float(np.mean(self.values)) if self.values else float("nan")


class SweepResult(NamedTuple):
    """What a sweep found."""

    plan: SweepPlan
    points: Sequence[PointResult]  # in the order of the plan
    positions: Sequence[int]  # of the evaluations, in `unit`
    unit: str  # "updates" or "environment steps"
    seconds: float


def pattern(curve: np.ndarray) -> str:
    """How a learning curve [evaluations] goes: rising, plateau, or peak then decline (the log's words)."""
    low, high = float(curve.min()), float(curve.max())
    if high - low <= FLAT * max(abs(high), 1.0):
        return "plateau"
    thirds = np.array_split(curve, 3)
    if high - curve[-2:].mean() > FALLEN * (high - low):
        return "peak then decline"
    return "rising" if thirds[-1].mean() - thirds[1].mean() > RISING * (high - low) else "plateau"


def write_sweep_report(result: SweepResult, folder: Path) -> Path:
    """Writes the report of a sweep into its folder; returns REPORT.md.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = list(_draw(result, folder))
    (folder / "result.json").write_text(json.dumps(_as_json(result), indent=1) + "\n", encoding="utf-8")
    file = folder / "REPORT.md"
    file.write_text("\n".join(_lines(result, pictures)) + "\n", encoding="utf-8")
    return file


def best(result: SweepResult) -> PointResult:
    """The point with the best mean."""
    sign = 1 if result.plan.maximize else -1
    return max(result.points, key=lambda each: sign * each.mean if each.values else -np.inf)


def _lines(result: SweepResult, pictures: Sequence[str]) -> Iterator[str]:
    plan, winner = result.plan, best(result)
    yield f"# {plan.name}"
    yield f"\n> {plan.sentence}\n"
    of = "mean of the last two evaluations" if plan.kind == "population" else what_it_is(plan.metric)
    yield (
        f"Best: {_named(winner.point)}, with {shown(winner.mean)} ({of}; "
        f"{len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''})."
    )
    yield f"\nEnvironment `{plan.config.env.name}`, {plan.kind} of {len(result.points)} points, {_budget(result)}.\n"
    yield from (f"![{name}]({name})" for name in pictures)
    keys = list(plan.over)
    yield f"\nCommit {git_commit() or 'unknown'}."
    yield "\n| " + " | ".join([*(f"`{key}`" for key in keys), "peak", "final", "pattern", *_more_heads(plan)]) + " |"
    yield "|" + "---|" * (len(keys) + 3 + len(_more_heads(plan)))
    for each in _ordered(result):
        cells = [shown_value(each.point[key]) for key in keys]
        if each.curves is None or not each.values:
            cells += ["-", "-", f"pruned at {each.pruned_at:,}" if each.pruned_at is not None else "-"]
        else:
            mean = each.curves.mean(0)
            cells += [shown(mean.max()), shown(mean[-2:].mean()), pattern(mean)]
        if plan.kind != "population":
            cells += [_by_seed(each.values)]
        yield "| " + " | ".join(cells) + " |"
    yield (
        "\nPeak: the highest greedy return of an evaluation; final: the mean of the last two; of the seeds' mean."
        "\nPattern: a decline is a final return more than 20% of the way from lowest to peak below the peak; "
        "rising is a last third above the second by more than 10% of it."
    )


def _more_heads(plan: SweepPlan) -> list[str]:
    return [] if plan.kind == "population" else [f"{plan.metric}, by seed"]


def _by_seed(values: Sequence[float]) -> str:
    return ", ".join(shown(value) for value in values) or "-"


def _ordered(result: SweepResult) -> list[PointResult]:
    """A grid in its own order, a search from best to worst."""
    if result.plan.kind != "search":
        return list(result.points)
    sign = -1 if result.plan.maximize else 1
    return sorted(result.points, key=lambda each: (not each.values, sign * each.mean if each.values else 0))


def _budget(result: SweepResult) -> str:
    plan = result.plan
    if plan.kind != "population":
        return f"{plan.config.train.env_steps:,} environment steps each"
    return (
        f"{plan.updates:,} updates each in the dreams of one frozen world model, in one compiled program; "
        f"{result.seconds:,.0f} s in all with the evaluations"
    )


def _named(point: Point) -> str:
    return ", ".join(f"`{key}` {shown_value(value)}" for key, value in point.items())


def _draw(result: SweepResult, folder: Path) -> Iterator[str]:
    plan = result.plan
    if len(plan.over) == 2 and plan.kind != "search":
        _heat_map(result, folder / "heat_map.png")
        yield "heat_map.png"
    elif plan.kind == "search":
        _scatter(result, folder / "points.png")
        yield "points.png"
    if any(each.curves is not None for each in result.points):
        _curves(result, folder / "curves.png")
        yield "curves.png"


def _heat_map(result: SweepResult, file: Path) -> None:
    plan = result.plan
    (row_key, row_values), (column_key, column_values) = plan.over.items()
    shape = (len(row_values), len(column_values))
    finals = np.array([each.mean for each in result.points]).reshape(shape)
    peaks = np.array([_peak(each) for each in result.points]).reshape(shape)
    figure = Figure(figsize=(3.4 + 1.6 * shape[1], 1.4 + 0.75 * shape[0]), layout="constrained")
    low, high = float(np.nanmin(finals)), float(np.nanmax(peaks))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, values in zip(panels, ("peak", "final"), (peaks, finals), strict=True):
        image = axes.imshow(values, cmap="viridis", aspect="auto", vmin=low, vmax=high)
        axes.set_xticks(range(shape[1]), [shown_value(value) for value in column_values])
        axes.set_yticks(range(shape[0]), [shown_value(value) for value in row_values])
        axes.set_xlabel(column_key.removeprefix("agent."))
        axes.set_title(title, fontsize="medium")
        for row, column in np.ndindex(shape):
            dark = values[row, column] < (low + high) / 2
            axes.text(
                column, row, shown(float(values[row, column])), ha="center", va="center", color="w" if dark else "k"
            )
    panels[0].set_ylabel(row_key.removeprefix("agent."))
    figure.colorbar(image, ax=panels, label="greedy return" if plan.kind == "population" else plan.metric)
    figure.savefig(file, dpi=110)


def _peak(each: PointResult) -> float:
    return float("nan") if each.curves is None else float(each.curves.mean(0).max())


def _curves(result: SweepResult, file: Path) -> None:
    """One panel for each value of the first key, one colour for each of the rest."""
    keys = list(result.plan.over)
    panels_of: dict[Any, list[PointResult]] = {}
    for each in result.points:
        if each.curves is not None:
            panels_of.setdefault(each.point[keys[0]] if len(keys) > 1 else "", []).append(each)
    shown_panels = list(panels_of.items())[:6]
    figure = Figure(figsize=(2.0 + 3.2 * len(shown_panels), 3.4), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(shown_panels), sharey=True, squeeze=False)[0]
    for axes, (value, points) in zip(panels, shown_panels, strict=True):
        for number, each in enumerate(points):
            assert each.curves is not None
            rest = {key: x for key, x in each.point.items() if key != keys[0] or len(keys) == 1}
            label = ", ".join(shown_value(x) for x in rest.values())
            mean, color = each.curves.mean(0), matplotlib.colormaps["viridis"](number / max(1, len(points) - 1) * 0.9)
            axes.fill_between(result.positions, each.curves.min(0), each.curves.max(0), color=color, alpha=0.12, lw=0)
            axes.plot(result.positions, mean, color=color, linewidth=1.6, label=label)
        if len(keys) > 1:
            axes.set_title(f"{keys[0].removeprefix('agent.')} {shown_value(value)}", fontsize="small")
        axes.set_xlabel(result.unit)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("greedy return")
    title = ", ".join(key.removeprefix("agent.") for key in (keys[1:] or keys))
    panels[-1].legend(frameon=False, fontsize="x-small", title=title, title_fontsize="x-small", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=110)


def _scatter(result: SweepResult, file: Path) -> None:
    """The metric against each key."""
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


def _as_json(result: SweepResult) -> dict[str, Any]:
    plan = result.plan
    return {
        "name": plan.name,
        "sweep": plan.sentence,
        "kind": plan.kind,
        "environment": plan.config.env.name,
        "metric": plan.metric,
        "seeds": list(plan.seeds),
        "unit": result.unit,
        "positions": list(result.positions),
        "points": [
            {
                "point": dict(each.point),
                "values": [round(value, 4) for value in each.values],
                "curves": None if each.curves is None else np.round(each.curves, 3).tolist(),
                "pruned_at": each.pruned_at,
            }
            for each in result.points
        ],
    }
