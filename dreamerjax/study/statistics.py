"""Statistics for few seeds: interquartile means, confidence intervals, verdicts.

After "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (Agarwal et al. 2021): interquartile means
with bootstrap intervals, and the probability of improvement. Verdicts use Welch's interval of the difference of means
instead: with three seeds, bootstrap intervals are too narrow and give too many false verdicts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
MAX_SEEDS = 1000  # above this, no number of seeds is suggested
MIN_SEEDS = 3  # per arm: fewer give no estimate of the spread, so no interval is given
COUNTS = {1: "One seed is", 2: "Two seeds are"}

Direction = Literal["higher", "lower", "same"]
Word = Literal["supported", "refuted", "inconclusive"]


class Interval(NamedTuple):
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float


class Judgement(NamedTuple):
    """The verdict on a hypothesis."""

    word: Word
    effect: Interval  # change - baseline, of the means, Welch's interval
    by: float  # the expected size of the effect, in units of the metric
    more_seeds: int | None  # per arm, needed for a verdict at this spread; None: decided, or too many


def too_few_seeds(seeds: int) -> str:
    """A warning that there are too few seeds to estimate the spread; empty if there are enough.

    Args:
        seeds: of the arm with fewer seeds.
    """
    return f"{COUNTS[seeds]} too few to estimate the spread between seeds." if seeds < MIN_SEEDS else ""


def interval_in_words(interval: Interval, seeds: int, *, number: Callable[[float], str]) -> str:
    """An estimate with its interval, or with the reason why it has none.

    Args:
        interval: from one of the functions below.
        seeds: of the arm with fewer seeds.
        number: formats a number.
    """
    estimate = number(interval.estimate)
    if seeds < MIN_SEEDS:
        return f"{estimate} (no interval: {seeds} seed{'' if seeds == 1 else 's'})"
    if interval.low == interval.high:
        return f"{estimate} (no interval: all {seeds} seeds agree)"
    return f"{estimate} [{number(interval.low)}, {number(interval.high)}]"


def interval_as_json(interval: Interval, seeds: int) -> dict[str, float | None]:
    """An estimate with its interval as a JSON object; `low` and `high` are null with too few seeds."""
    if seeds < MIN_SEEDS:
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
    """The probability that a run of the change has a higher metric than one of the baseline; ties count half."""

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
    if np.array_equal(x, y):  # equal for every seed, to the last digit: the change has no effect
        return Interval(0.0, 0.0, 0.0)
    estimate = float(y.mean() - x.mean())
    parts = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    if parts.sum() == 0:
        return Interval(estimate, estimate, estimate)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(x) - 1, len(y) - 1])).sum()
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * math.sqrt(parts.sum()))
    return Interval(estimate, estimate - half, estimate + half)


def judge(baseline: Sequence[float], change: Sequence[float], direction: Direction, by: float) -> Judgement:
    """Decides whether the metric of the change is higher, lower or the same, by the expected size.

    - higher, lower: supported if the whole interval is on that side of 0 and the estimate reaches `by`; refuted if the
      whole interval is short of `by`.
    - same: supported if the whole interval is within `by` of 0; refuted if all of it is outside.
    - With fewer than three seeds per arm the verdict is inconclusive, unless the arms are equal for every seed.

    Args:
        baseline: the metric of each seed, two or more.
        change: the metric of each seed, two or more.
        direction: the expected direction.
        by: the expected size, 0 or more, in units of the metric.
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
    enough = seeds >= MIN_SEEDS or np.array_equal(baseline, change)
    if enough and (supported or refuted):
        return Judgement("supported" if supported else "refuted", effect, by, None)
    if seeds < MIN_SEEDS:
        return Judgement("inconclusive", effect, by, MIN_SEEDS - seeds)
    needed = math.ceil(seeds * (half / margin) ** 2) if margin > 0 else MAX_SEEDS + 1
    more = max(1, needed - seeds)
    return Judgement("inconclusive", effect, by, more if needed <= MAX_SEEDS else None)
