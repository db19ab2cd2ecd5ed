"""The metrics of finished runs that a hypothesis or a sweep can name: one number per run."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dreamerjax.config import ConfigError
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runs.settings import did_you_mean
from dreamerjax.study.jobs import Job, summary_of
from dreamerjax.viz.curve_shape import final_return, peak_return

Rows = list[dict[str, Any]]  # of metrics.jsonl


def returns_of(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps and mean greedy returns of the evaluations, [evaluations] each."""
    return series(rows, "eval/return_mean")


def series(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Environment steps and values of one metric, [lines] each; of several lines at one step, the last."""
    points = {row["step"]: row[name] for row in rows if name in row}
    return np.array(list(points)), np.array(list(points.values()), float)


def _decline(rows: Rows, summary: dict[str, Any]) -> float:
    returns = returns_of(rows)[1]
    return float(returns.max() - returns[returns.argmax() :].min())


def _speed(name: str) -> Callable[[Rows, dict[str, Any]], float]:
    return lambda rows, summary: float(np.median([row[name] for row in rows if row.get(name)]))


def _at_solution(name: str) -> Callable[[Rows, dict[str, Any]], float]:
    return lambda rows, summary: float((summary["solved_at"] or summary)[name])


METRICS: dict[str, tuple[str, Callable[[Rows, dict[str, Any]], float]]] = {
    "mean_return": (
        "mean greedy return over all evaluations, the area under the learning curve",
        lambda rows, summary: float(returns_of(rows)[1].mean()),
    ),
    "final_return": (
        "mean greedy return of the last evaluation",
        lambda rows, summary: final_return(returns_of(rows)[1]),
    ),
    "peak_return": ("highest mean greedy return", lambda rows, summary: peak_return(returns_of(rows)[1])),
    "decline": ("largest fall of the greedy return after its peak", _decline),
    "steps_to_solve": ("environment steps until solved; the whole budget if not solved", _at_solution("env_steps")),
    "updates_to_solve": ("updates until solved; all updates if not solved", _at_solution("updates")),
    "seconds_to_solve": ("seconds until solved; the whole run if not solved", _at_solution("wall_seconds")),
    "wall_seconds": ("wall time of the run in seconds", lambda rows, summary: float(summary["wall_seconds"])),
    "updates_per_second": ("median of the updates per second", _speed("speed/updates_per_second")),
    "env_steps_per_second": ("median of the environment steps per second", _speed("speed/env_steps_per_second")),
}


def check_metric(name: str) -> None:
    """Checks that a metric is in `METRICS` or a name of metrics.jsonl, `group/name`.

    Raises:
        ConfigError: it is neither.
    """
    if name not in METRICS and "/" not in name:
        hint = did_you_mean(name, list(METRICS))
        raise ConfigError(
            f"Unknown metric `{name}`.{hint}\nExpected one of {', '.join(METRICS)}, or a name of metrics.jsonl such as "
            "train/kl."
        )


def describe_metric(name: str) -> str:
    """A description of the metric."""
    return METRICS[name][0] if name in METRICS else f"mean of `{name}` over the last half of the run"


def run_metric(job: Job, name: str) -> float:
    """The metric of a finished job; for `group/name`, the mean over the second half of the run.

    Raises:
        ConfigError: metrics.jsonl of the run does not contain it.
    """
    rows, summary = read_metrics(RunFolder(job.folder).metrics_path), summary_of(job)
    assert summary is not None, "the job is finished"
    if name in METRICS:
        return METRICS[name][1](rows, summary)
    steps, values = series(rows, name)
    late = values[steps >= summary["env_steps"] / 2]
    if not len(late):
        raise ConfigError(f"{job.folder} has no `{name}` in its metrics.jsonl.")
    return float(np.mean(late))


def run_metrics(jobs: Sequence[Job], name: str) -> list[float]:
    """The metric of each job."""
    return [run_metric(job, name) for job in jobs]


def format_number(value: float) -> str:
    """A number for a table, with 3 or 4 significant digits."""
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) < 1 else f"{value:.1f}"
