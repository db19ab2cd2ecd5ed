"""Writes the report of a sweep: REPORT.md with a table, result.json; sweep_pictures.py draws the figures."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dreamerjax.monitoring.summary import count
from dreamerjax.study.run_metrics import describe_metric, format_number
from dreamerjax.study.statistics import too_few_seeds
from dreamerjax.study.sweep_pictures import draw_sweep
from dreamerjax.study.sweep_plan import Point, shown_value
from dreamerjax.study.sweep_result import PointResult, SweepResult
from dreamerjax.training.reporter import git_commit


def write_sweep_report(result: SweepResult, folder: Path) -> Path:
    """Writes the report of a sweep into its folder; returns REPORT.md.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw_sweep(result, folder)
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
    yield (
        f"Best: {_named(winner.point)}, with {format_number(winner.mean)} ({describe_metric(plan.metric)}; "
        f"{count(len(plan.seeds), 'seed')})."
    )
    if few := too_few_seeds(len(plan.seeds)):
        yield f"\n{few} A difference between two points may be chance."
    yield f"\nEnvironment `{plan.config.env.name}`, {plan.kind} of {len(result.points)} points, {_budget(result)}.\n"
    yield from (f"![{name}]({name})" for name in pictures)
    yield f"\nCommit {git_commit() or 'unknown'}.\n"
    yield from _table(result)
    yield (
        "\n`final` is the last greedy evaluation of a seed and `peak` its highest; the table has their means over the "
        "seeds.\n`pattern` describes each seed's curve, after a fit of a rise followed by a fall. Up and down: the fit "
        "explains less than 60% of the variance. Peak then decline: the fit ends more than 20% of the range below its "
        "peak. Rising: the last third is above the second by more than 10% of the range. Plateau: none of these."
    )
    yield "\n## Runs\n"
    for each in _ordered(result):
        yield f"- {_named(each.point)}: {', '.join(f'`{run.folder}`' for run in each.runs) or 'none'}"


def _table(result: SweepResult) -> Iterator[str]:
    plan = result.plan
    heads = [*(f"`{key}`" for key in plan.over), "peak", "final", "pattern"]
    of_metric = plan.kind != "population"
    heads += [f"{plan.metric}, by seed"] if of_metric else []
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for each in _ordered(result):
        cells = [shown_value(each.point[key]) for key in plan.over]
        if each.ended:
            cells += [format_number(each.peak), format_number(each.final), each.pattern]
        else:
            cells += ["-", "-", f"pruned at {each.pruned_at:,}" if each.pruned_at is not None else "-"]
        cells += [", ".join(format_number(value) for value in each.values) or "-"] if of_metric else []
        yield "| " + " | ".join(cells) + " |"


def _ordered(result: SweepResult) -> list[PointResult]:
    """The points of a grid in its order, those of a search from best to worst."""
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
        f"{result.seconds:,.0f} s in total, including evaluations"
    )


def _named(point: Point) -> str:
    return ", ".join(f"`{key}` {shown_value(value)}" for key, value in point.items())


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
        "points": [
            {
                "point": dict(each.point),
                "values": [round(value, 4) for value in each.values],
                "runs": [
                    {"folder": str(run.folder), "steps": run.steps.tolist(), "returns": run.returns.round(3).tolist()}
                    for run in each.runs
                ],
                "pruned_at": each.pruned_at,
            }
            for each in result.points
        ],
    }
