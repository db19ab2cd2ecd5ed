"""Verdicts on a run: OK, warning or unclear, with a reason. They depend only on the run's metrics and settings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from dreamerjax.config import Config

Lines = Sequence[Mapping[str, Any]]  # of metrics.jsonl, from `read_metrics`
Level = Literal["ok", "warning", "unclear"]

WORDS: Mapping[Level, str] = {"ok": "OK", "warning": "Warning", "unclear": "Unclear"}
MIN_UPDATES = 100  # updates of the actor, before which nothing is judged


class Verdict(NamedTuple):
    """A verdict on one aspect of a run."""

    level: Level
    sentence: str  # the reason, with the numbers of this run


def ok(sentence: str) -> Verdict:
    """A verdict without a problem."""
    return Verdict("ok", sentence)


def warning(sentence: str) -> Verdict:
    """A verdict with a problem to look into."""
    return Verdict("warning", sentence)


def unclear(sentence: str) -> Verdict:
    """A verdict on too little data."""
    return Verdict("unclear", sentence)


def updates_of(lines: Lines, config: Config) -> int:
    """The number of updates so far that trained the actor."""
    return max(0, lines[-1]["update"] - config.train.world_model_warmup) if lines else 0


def min_updates(config: Config) -> int:
    """The number of updates needed for a verdict: at least the learning rate's warm-up."""
    return max(MIN_UPDATES, config.agent.optimizer.warmup_updates)


def values_of(lines: Lines, metric: str) -> list[float]:
    """All finite values of a metric, oldest first."""
    return [float(line[metric]) for line in lines if math.isfinite(line.get(metric, math.nan))]


def newest_of(lines: Lines, metric: str, count: int) -> float:
    """The mean of at most `count` newest finite values of a metric; NaN if there is none."""
    values = values_of(lines, metric)[-count:]
    return sum(values) / len(values) if values else math.nan
