"""Runs a sweep of any kind: plan in, result out."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.study.jobs import Job, run_jobs
from dreamerjax.study.optuna_study import Runner, run_study
from dreamerjax.study.population_run import run_population, seed_folder, source_job
from dreamerjax.study.ray_runner import run_jobs_on_ray
from dreamerjax.study.run_metrics import returns_of
from dreamerjax.study.sweep_plan import SweepPlan
from dreamerjax.study.sweep_result import PointResult, RunCurve, SweepResult
from dreamerjax.viz.curve_shape import final_return

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
    """Runs the missing part of a sweep.

    Args:
        plan: checked.
        folder: for Optuna's journal or the checkpoints of a population.
        executor: "ray" needs `start_ray` first.
        at_once: parallel runs on this machine; trials in a batch of a search.
        say: called with a line of text for each event.
        show: called with the current status every few seconds.
        interrupted: polled regularly; True saves and stops the sweep.

    Returns:
        The result, or None if the user stopped it.

    Raises:
        ConfigError, CheckpointError, JobFailedError: see `run_study` and `run_population`.
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
    points = [
        PointResult(trial.point, trial.values, _runs(plan.jobs(trial.point), trial.pruned_at), trial.pruned_at)
        for trial in trials
    ]
    return SweepResult(plan, points, "environment steps", 0.0)


def _population(
    plan: SweepPlan, folder: Path, runner: Runner, say: Callable[[str], None], interrupted: Callable[[], bool]
) -> SweepResult | None:
    source = source_job(plan)
    if source is not None and not runner([source], stop_early=lambda job: False):
        return None
    found = run_population(plan, folder, say=say, interrupted=interrupted)
    if found is None:
        return None
    points = []
    for number, point in enumerate(plan.grid()):
        runs = [
            RunCurve(seed_folder(folder, seed), np.array(curves.updates), np.array(curves.returns)[:, number])
            for seed, curves in zip(plan.seeds, found, strict=True)
        ]
        points.append(PointResult(point, tuple(final_return(run.returns) for run in runs), runs))
    return SweepResult(plan, points, "updates", sum(curves.seconds for curves in found))


def _runs(jobs: list[Job], pruned_at: int | None) -> list[RunCurve]:
    """The evaluations of each seed; of a pruned point, those of its first seed, the only one that ran."""
    begun = jobs[:1] if pruned_at is not None else jobs
    return [RunCurve(job.folder, *returns_of(read_metrics(RunFolder(job.folder).metrics_path))) for job in begun]
