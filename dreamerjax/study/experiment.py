"""An experiment: trains the runs of a hypothesis and gives the verdict."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamerjax.config import flatten
from dreamerjax.monitoring.alerts import alerts_of
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.study.hypothesis import Hypothesis
from dreamerjax.study.jobs import POOL, Job, run_jobs, summary_of
from dreamerjax.study.run_metrics import run_metrics, series
from dreamerjax.study.statistics import (
    Interval,
    Judgement,
    interquartile_mean,
    interval_as_json,
    judge,
    probability_of_improvement,
)

CURVE = "eval/return_mean"


class Curve(NamedTuple):
    """One metric over environment steps, for all seeds of an arm."""

    steps: np.ndarray  # [points] common to all seeds
    values: np.ndarray  # [seeds, points]


class Arm(NamedTuple):
    """The results of the baseline or of the change."""

    name: str
    outcomes: list[float]  # the metric, by seed
    middle: Interval  # interquartile mean
    curves: dict[str, Curve]  # by name in metrics.jsonl
    alerts: dict[str, int]  # name -> number of runs that raised it
    cost: dict[str, float]  # means over the seeds
    commits: list[str]
    device: str
    folders: list[str]  # of the runs, by seed


class Result(NamedTuple):
    """The result of an experiment."""

    hypothesis: Hypothesis
    baseline: Arm
    change: Arm
    judgement: Judgement
    improvement: Interval  # probability that the metric of a run of the change is higher
    differing: dict[str, tuple[Any, Any]]  # key -> (baseline, change)


def run_experiment(
    hypothesis: Hypothesis,
    *,
    at_once: int,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
    pool: Path = POOL,
) -> Result | None:
    """Trains the missing runs and judges the hypothesis.

    Returns:
        The result, or None if the user stopped it; the same call resumes.

    Raises:
        JobFailedError: a run ended with an error.
    """
    baseline, change = hypothesis.jobs(pool)
    # Alternates between the arms, so that partial results have the same seeds in both.
    jobs = [job for pair in zip(baseline, change, strict=True) for job in pair]
    if not run_jobs(jobs, at_once=at_once, say=say, show=show, interrupted=interrupted):
        return None
    arms = [_arm(name, jobs, hypothesis) for name, jobs in (("baseline", baseline), ("change", change))]
    return Result(
        hypothesis=hypothesis,
        baseline=arms[0],
        change=arms[1],
        judgement=judge(
            arms[0].outcomes,
            arms[1].outcomes,
            hypothesis.expect.direction,
            hypothesis.expect.size(arms[0].outcomes),
        ),
        improvement=probability_of_improvement(arms[0].outcomes, arms[1].outcomes),
        differing=_differing(hypothesis),
    )


def as_json(result: Result) -> dict[str, Any]:
    """The content of result.json: the result without the settings that both arms share."""
    h, j = result.hypothesis, result.judgement
    return {
        "name": h.name,
        "hypothesis": h.sentence,
        "environment": h.baseline.env.name,
        "metric": h.metric,
        "expected": str(h.expect),
        "verdict": j.word,
        "more_seeds": j.more_seeds,
        "effect": interval_as_json(j.effect, len(h.seeds)),
        "probability_of_improvement": interval_as_json(result.improvement, len(h.seeds)),
        "seeds": list(h.seeds),
        "differing": {key: list(pair) for key, pair in result.differing.items()},
        "arms": {
            arm.name: {
                "outcomes": [round(x, 6) for x in arm.outcomes],
                "interquartile_mean": interval_as_json(arm.middle, len(h.seeds)),
                "alerts": arm.alerts,
                "cost": {key: round(x, 1) for key, x in arm.cost.items()},
                "commits": arm.commits,
                "device": arm.device,
                "folders": arm.folders,
                "curves": {
                    name: {"steps": curve.steps.tolist(), "values": np.round(curve.values, 5).tolist()}
                    for name, curve in arm.curves.items()
                },
            }
            for arm in (result.baseline, result.change)
        },
    }


def curve_of(jobs: Sequence[Job], name: str) -> Curve | None:
    """A metric of several runs at their common steps; None if there are none."""
    each = [
        dict(zip(*map(list, series(read_metrics(RunFolder(job.folder).metrics_path), name)), strict=True))
        for job in jobs
    ]
    steps = sorted(set.intersection(*(set(points) for points in each)))
    if not steps:
        return None
    return Curve(np.array(steps), np.array([[points[step] for step in steps] for points in each]))


def _arm(name: str, jobs: Sequence[Job], hypothesis: Hypothesis) -> Arm:
    summaries = [summary for job in jobs if (summary := summary_of(job)) is not None]
    found = run_metrics(jobs, hypothesis.metric)
    names = [CURVE, *(name for name in hypothesis.shown if "/" in name)]
    return Arm(
        name=name,
        outcomes=found,
        middle=interquartile_mean(found),
        curves={name: curve for name in names if (curve := curve_of(jobs, name)) is not None},
        alerts=_alerts(jobs),
        cost={
            key: float(np.mean([summary[key] for summary in summaries]))
            for key in ("env_steps", "updates", "wall_seconds")
        },
        commits=sorted({_short(summary["git_commit"]) for summary in summaries}),
        device=", ".join(sorted({summary["device"] for summary in summaries})),
        folders=[str(job.folder) for job in jobs],
    )


def _alerts(jobs: Sequence[Job]) -> dict[str, int]:
    raised = [
        name
        for job in jobs
        for name in {alert.name for alert in alerts_of(read_metrics(RunFolder(job.folder).metrics_path), job.config)}
    ]
    return dict(sorted(Counter(raised).items()))


def _short(commit: str | None) -> str:
    name, plus, changes = (commit or "unknown").partition("+")
    return name[:12] + plus + changes  # "+changes": uncommitted changes


def _differing(hypothesis: Hypothesis) -> dict[str, tuple[Any, Any]]:
    there, here = flatten(hypothesis.baseline), flatten(hypothesis.change)
    found = {key: (there[key], here[key]) for key in there if there[key] != here[key]}
    if hypothesis.baseline_code != hypothesis.change_code:
        found["code"] = (hypothesis.baseline_code or "the library", hypothesis.change_code or "the library")
    return found


def write_json(result: Result, file: Path) -> None:
    """Writes result.json."""
    file.write_text(json.dumps(as_json(result), indent=1) + "\n", encoding="utf-8")
