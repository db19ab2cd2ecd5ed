"""Verdicts on a run: sound, or look here, and why. Each is a function of the run's metrics and settings alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from dreamerjax.config import Config

Lines = Sequence[Mapping[str, Any]]  # of metrics.jsonl, as `read_metrics` gives them
Level = Literal["sound", "look", "unclear"]

WORDS: Mapping[Level, str] = {"sound": "Sound", "look": "Look here", "unclear": "Cannot tell yet"}
LEAST_UPDATES = 100  # that train the actor: with fewer, nothing could have been learned yet


class Verdict(NamedTuple):
    """What a run shows in one respect."""

    level: Level
    sentence: str  # why, with the numbers of this run


def sound(sentence: str) -> Verdict:
    """Nothing to worry about."""
    return Verdict("sound", sentence)


def look(sentence: str) -> Verdict:
    """Something that deserves a look."""
    return Verdict("look", sentence)


def unclear(sentence: str) -> Verdict:
    """Too little to tell."""
    return Verdict("unclear", sentence)


def updates_of(lines: Lines, config: Config) -> int:
    """Updates so far that trained more than the world model."""
    return max(0, lines[-1]["update"] - config.train.world_model_warmup) if lines else 0


def least_updates(config: Config) -> int:
    """Updates that it takes before anything can be told: until the learning rate has warmed up, and some more."""
    return max(LEAST_UPDATES, config.agent.optimizer.warmup_updates)


def values_of(lines: Lines, metric: str) -> list[float]:
    """All finite values of a metric, oldest first."""
    return [float(line[metric]) for line in lines if math.isfinite(line.get(metric, math.nan))]


def newest_of(lines: Lines, metric: str, count: int) -> float:
    """The mean of the newest finite values of a metric, `count` of them at most; NaN if there is none."""
    values = values_of(lines, metric)[-count:]
    return sum(values) / len(values) if values else math.nan
