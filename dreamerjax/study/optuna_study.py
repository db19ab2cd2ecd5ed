"""Grids and searches: Optuna proposes trials and stores them in a journal, so a killed sweep resumes without loss.

Optuna proposes all trials of a batch before any of them runs, and each proposal has a separate sampler seed. A study
that is killed and restarted therefore proposes the same trials as an uninterrupted study.
"""

import json
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dreamerjax.config import ConfigError
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.study.jobs import POOL, Job
from dreamerjax.study.run_metrics import returns_of, run_metrics
from dreamerjax.study.sweep_plan import Point, Span, SweepPlan

STARTUP_TRIALS = 4  # never pruned: pruning compares with earlier trials
WARMUP_SHARE = 1 / 3  # of a run, during which it is never pruned


class Runner(Protocol):
    """Runs jobs, locally or on a cluster: see `run_jobs`."""

    def __call__(self, jobs: Sequence[Job], *, stop_early: Callable[[Job], bool]) -> bool:
        """Returns whether all jobs are finished: False if the user stopped them."""
        ...


class Trial(NamedTuple):
    """One finished or pruned point of a study."""

    number: int
    point: Point
    values: tuple[float, ...]  # the metric, by seed; empty if it was pruned
    pruned_at: int | None  # environment steps


def run_study(plan: SweepPlan, folder: Path, runner: Runner, *, at_once: int, pool: Path = POOL) -> list[Trial] | None:
    """Runs the missing trials.

    Args:
        plan: a grid or a search.
        folder: for Optuna's journal.
        runner: runs the jobs.
        at_once: trials in a batch of a search; a grid is one batch.
        pool: where the runs are.

    Returns:
        All trials, or None if the user stopped them; the same call resumes.

    Raises:
        ConfigError: the folder contains another sweep of this name.
        JobFailedError: a run ended with an error.
    """
    study = _open_study(plan, folder)
    total, batch = (len(plan.grid()),) * 2 if plan.kind == "grid" else (plan.trials, at_once)
    while open_ones := _next_batch(plan, study, total, batch):
        if not _run_batch(plan, study, open_ones, runner, pool):
            return None
    return [_trial(plan, trial, pool) for trial in study.trials[:total]]


def _open_study(plan: SweepPlan, folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    pruner = optuna.pruners.NopPruner()
    if plan.prune:
        warm_up = int(WARMUP_SHARE * plan.config.train.env_steps)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warm_up)
    direction = "maximize" if plan.maximize else "minimize"
    study = optuna.create_study(
        storage=storage, study_name=plan.name, direction=direction, pruner=pruner, load_if_exists=True
    )
    what = json.dumps([plan.kind, plan.config, plan.over, plan.metric, plan.seeds, plan.prune], default=str)
    if study.user_attrs.setdefault("what", what) != what:
        raise ConfigError(
            f"{folder} contains another sweep of this name: its settings differ from those of {plan.where}.\n"
            "Rename the sweep file, or remove the folder."
        )
    study.set_user_attr("what", what)
    return study


def _next_batch(plan: SweepPlan, study: optuna.Study, total: int, batch: int) -> list[optuna.trial.FrozenTrial]:
    """The unfinished trials of the first unfinished batch; lets Optuna propose them if it has not yet."""
    first = next((trial.number for trial in study.trials if not trial.state.is_finished()), len(study.trials))
    if first >= total:
        return []
    end = min((first // batch + 1) * batch, total)
    while len(study.trials) < end:
        number = len(study.trials)
        if plan.kind == "grid":
            study.enqueue_trial(plan.grid()[number])
            # len(study.trials) counts an enqueued trial, so it is asked for at once.
        study.sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=2 * STARTUP_TRIALS)
        study.ask({key: _distribution(choices) for key, choices in plan.over.items()})
    waiting = [trial for trial in study.trials if trial.state == TrialState.WAITING]
    for _ in waiting:  # the process was killed between enqueue_trial and ask
        study.ask({key: _distribution(choices) for key, choices in plan.over.items()})
    return [trial for trial in study.trials if trial.state == TrialState.RUNNING]


def _run_batch(
    plan: SweepPlan, study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], runner: Runner, pool: Path
) -> bool:
    jobs = {trial.number: plan.jobs(trial.params, pool) for trial in trials}
    watched = {
        jobs[trial.number][0]: _Pruning(optuna.trial.Trial(study, trial._trial_id)) for trial in trials if plan.prune
    }

    def stop_early(job: Job) -> bool:
        return job in watched and watched[job].should_stop(job)

    first = [jobs[trial.number][0] for trial in trials]
    if not runner(first if plan.prune else [job for each in jobs.values() for job in each], stop_early=stop_early):
        return False
    going_on = [trial for trial in trials if not (plan.prune and watched[jobs[trial.number][0]].pruned)]
    if plan.prune and not runner(
        [job for trial in going_on for job in jobs[trial.number]], stop_early=lambda job: False
    ):
        return False
    for trial in trials:
        if trial in going_on:
            values = run_metrics(jobs[trial.number], plan.metric)
            study.tell(trial.number, sum(values) / len(values))
        else:
            study.tell(trial.number, state=TrialState.PRUNED)
    return True


class _Pruning:
    """Reports the evaluations of a run to Optuna, which decides whether to prune it."""

    def __init__(self, trial: optuna.trial.Trial) -> None:
        self._trial, self._lock = trial, threading.Lock()
        self._reported_step = max(trial.storage.get_trial(trial._trial_id).intermediate_values, default=-1)
        self.pruned = self._reported_step >= 0 and trial.should_prune()

    def should_stop(self, job: Job) -> bool:
        with self._lock:
            if self.pruned:
                return True
            try:
                steps, returns = returns_of(read_metrics(RunFolder(job.folder).metrics_path))
            except OSError:  # the run has not started
                return False
            for step, value in zip(steps.tolist(), returns.tolist(), strict=True):
                if step > self._reported_step:
                    self._reported_step = step
                    self._trial.report(value, step)
                    if self._trial.should_prune():
                        self.pruned = True
                        return True
            return False


def _trial(plan: SweepPlan, trial: optuna.trial.FrozenTrial, pool: Path) -> Trial:
    if trial.state == TrialState.PRUNED:
        return Trial(trial.number, trial.params, (), max(trial.intermediate_values))
    values = run_metrics(plan.jobs(trial.params, pool), plan.metric)
    return Trial(trial.number, trial.params, tuple(values), None)


def _distribution(choices: tuple[Any, ...] | Span) -> BaseDistribution:
    if not isinstance(choices, Span):
        return CategoricalDistribution(choices)
    if isinstance(choices.low, int) and isinstance(choices.high, int):
        return IntDistribution(choices.low, choices.high, log=choices.log)
    return FloatDistribution(choices.low, choices.high, log=choices.log)
