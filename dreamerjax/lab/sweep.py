"""A sweep from its plan to its result, whichever kind it is."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from dreamerjax.host.metrics import read_metrics
from dreamerjax.lab.jobs import Job, run_jobs
from dreamerjax.lab.outcomes import returns_of
from dreamerjax.lab.population_run import run_population, source_job
from dreamerjax.lab.ray_runner import run_jobs_on_ray
from dreamerjax.lab.study import Runner, run_study
from dreamerjax.lab.sweep_plan import SweepPlan
from dreamerjax.lab.sweep_report import PointResult, SweepResult

Executor = Literal["local", "ray"]


def run_sweep(
    plan: SweepPlan,
    folder: Path,
    *,
    executor: Executor,
    at_once: int,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> SweepResult | None:
    """Runs what is missing of a sweep.

    Args:
        plan: checked.
        folder: for what a start later goes on from.
        executor: "ray" needs `start_ray` first.
        at_once: runs side by side on this machine; trials in a batch of a search.
        say: told what happens, a line each time.
        show: told what is under way, every few seconds.
        interrupted: asked now and then.

    Returns:
        The result, or None if the user stopped it.

    Raises:
        ConfigError, CheckpointError, Failed: see `run_study` and `run_population`.
    """
    runner: Runner = (
        functools.partial(run_jobs_on_ray, say=say, show=show, interrupted=interrupted)
        if executor == "ray"
        else functools.partial(run_jobs, at_once=at_once, say=say, show=show, interrupted=interrupted)
    )
    if plan.kind == "population":
        return _population(plan, folder, runner, say, interrupted)
    trials = run_study(plan, folder, runner, at_once=at_once)
    if trials is None:
        return None
    curves = [_curves(plan.jobs(trial.point)) if trial.values else None for trial in trials]
    positions = next((found[0].tolist() for found in curves if found is not None), [])
    points = [
        PointResult(trial.point, trial.values, None if found is None else found[1], trial.pruned_at)
        for trial, found in zip(trials, curves, strict=True)
    ]
    return SweepResult(plan, points, positions, "environment steps", 0.0)


def _population(
    plan: SweepPlan, folder: Path, runner: Runner, say: Callable[[str], None], interrupted: Callable[[], bool]
) -> SweepResult | None:
    source = source_job(plan)
    if source is not None and not runner([source], enough=lambda job: False):
        return None
    found = run_population(plan, folder, say=say, interrupted=interrupted)
    if found is None:
        return None
    returns = np.array([curves.returns for curves in found])  # [seeds, evaluations, members]
    points = [
        PointResult(point, tuple(returns[:, -2:, number].mean(1).tolist()), returns[:, :, number])
        for number, point in enumerate(plan.grid())
    ]
    return SweepResult(plan, points, found[0].updates, "updates", sum(curves.seconds for curves in found))


def _curves(jobs: list[Job]) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps [evaluations] and greedy returns [seeds, evaluations], at the steps that all seeds have."""
    each = [dict(zip(*returns_of(read_metrics(job.folder / "metrics.jsonl")), strict=True)) for job in jobs]
    steps = sorted(set.intersection(*map(set, each)))
    return (np.array(steps), np.array([[by_step[step] for step in steps] for by_step in each])) if steps else None
