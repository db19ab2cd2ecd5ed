"""Few seeds, honest numbers: interquartile means, intervals, and what they allow to say.

After "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (Agarwal et al. 2021): interquartile means
with bootstrap intervals, and the probability of improvement. A verdict rests on Welch's interval of the difference of
means instead: with three seeds the bootstrap's are too narrow, and a verdict that is wrong too often is worth nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
MOST_SEEDS = 1000  # more than these are as good as never
FEWEST_SEEDS = 3  # of a side: fewer tell nothing about the spread, and no interval is given
COUNTS = {1: "One seed tells", 2: "Two seeds tell"}

Direction = Literal["higher", "lower", "same"]
Word = Literal["supported", "refuted", "inconclusive"]


class Interval(NamedTuple):
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float


class Judgement(NamedTuple):
    """What the runs say of a hypothesis."""

    word: Word
    effect: Interval  # change - baseline, of the means, Welch's interval
    by: float  # the size that was expected, in units of the metric
    more_seeds: int | None  # of each arm, that it would take if the spread stays; None: decided, or too many


def too_few_seeds(seeds: int) -> str:
    """That so few seeds tell nothing about the spread, as a sentence; empty if there are enough of them.

    Args:
        seeds: of the side that has fewer.
    """
    return f"{COUNTS[seeds]} nothing about the spread from seed to seed." if seeds < FEWEST_SEEDS else ""


def interval_in_words(interval: Interval, seeds: int, *, number: Callable[[float], str]) -> str:
    """An estimate with its interval; in words where there is none to give, or where it has no width.

    Args:
        interval: of one of the functions below.
        seeds: of the side that has fewer.
        number: writes a number.
    """
    estimate = number(interval.estimate)
    if seeds < FEWEST_SEEDS:
        return f"{estimate} (no interval: {seeds} seed{'' if seeds == 1 else 's'})"
    if interval.low == interval.high:
        return f"{estimate} (no interval: all {seeds} seeds agree)"
    return f"{estimate} [{number(interval.low)}, {number(interval.high)}]"


def interval_as_json(interval: Interval, seeds: int) -> dict[str, float | None]:
    """The same for programs: `low` and `high` are null with too few seeds."""
    if seeds < FEWEST_SEEDS:
        return {"estimate": interval.estimate, "low": None, "high": None}
    return dict(interval._asdict())


def interquartile_mean(values: Sequence[float]) -> Interval:
    """The mean of the middle half, with a bootstrap interval over the seeds."""
    x = np.asarray(values, float)

    def iqm(x: np.ndarray, axis: int = -1) -> np.ndarray:
        return stats.trim_mean(x, 0.25, axis=axis)

    estimate = float(iqm(x))
    if len(x) < 2 or np.ptp(x) == 0:
        return Interval(estimate, estimate, estimate)
    found = stats.bootstrap(
        (x,), iqm, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
    )
    return Interval(estimate, *(float(end) for end in found.confidence_interval))


def probability_of_improvement(baseline: Sequence[float], change: Sequence[float]) -> Interval:
    """The probability that a run of the change has more than a run of the baseline; ties count half."""

    def better(x: np.ndarray, y: np.ndarray) -> float:
        return float(((y[:, None] > x) + 0.5 * (y[:, None] == x)).mean())

    x, y = np.asarray(baseline, float), np.asarray(change, float)
    generator = np.random.default_rng(0)
    again = [better(generator.choice(x, len(x)), generator.choice(y, len(y))) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    return Interval(better(x, y), *(float(end) for end in np.quantile(again, [tail, 1 - tail])))


def difference(baseline: Sequence[float], change: Sequence[float]) -> Interval:
    """Mean of the change minus mean of the baseline, with Welch's interval; exactly 0 if no seed shows a difference."""
    x, y = np.asarray(baseline, float), np.asarray(change, float)
    if np.array_equal(x, y):  # seed by seed, to the last digit: the change changes nothing that a run does
        return Interval(0.0, 0.0, 0.0)
    estimate = float(y.mean() - x.mean())
    parts = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    if parts.sum() == 0:
        return Interval(estimate, estimate, estimate)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(x) - 1, len(y) - 1])).sum()
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(parts.sum()))
    return Interval(estimate, estimate - half, estimate + half)


def judge(baseline: Sequence[float], change: Sequence[float], direction: Direction, by: float) -> Judgement:
    """Whether the runs support that the change is higher, lower or the same, by so much.

    - higher, lower: supported if all of the interval lies on that side of 0, and the estimate reaches `by`; refuted if
      all of the interval falls short of `by`.
    - same: supported if all of the interval lies within `by` of 0; refuted if all of it lies outside.
    - With fewer than three seeds a side it is inconclusive, unless no seed differs at all.

    Args:
        baseline: the metric of each seed, two or more.
        change: the same.
        direction: what was expected.
        by: 0 or more, in units of the metric.
    """
    effect = difference(baseline, change)
    half = (effect.high - effect.low) / 2
    if direction == "same":
        size = abs(effect.estimate)
        supported, refuted = size + half <= by, size - half > by
        margin = abs(by - size)
    else:
        size = effect.estimate if direction == "higher" else -effect.estimate
        supported = size - half > 0 and size >= by
        refuted = size + half < by or (by == 0 and size + half <= 0)
        margin = size if size >= by else by - size
    seeds = min(len(baseline), len(change))
    enough = seeds >= FEWEST_SEEDS or np.array_equal(baseline, change)
    if enough and (supported or refuted):
        return Judgement("supported" if supported else "refuted", effect, by, None)
    if seeds < FEWEST_SEEDS:
        return Judgement("inconclusive", effect, by, FEWEST_SEEDS - seeds)
    needed = math.ceil(seeds * (half / margin) ** 2) if margin > 0 else MOST_SEEDS + 1
    more = max(1, needed - seeds)
    return Judgement("inconclusive", effect, by, more if needed <= MOST_SEEDS else None)
