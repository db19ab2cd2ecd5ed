"""Statistics of few seeds: results calculated by hand, and the rate of false verdicts."""

import numpy as np
import pytest

from dreamerjax.study.statistics import (
    Interval,
    difference,
    interquartile_mean,
    interval_as_json,
    interval_in_words,
    judge,
    probability_of_improvement,
    too_few_seeds,
)


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert interquartile_mean([0, 1, 2, 1000]).estimate == 1.5
    assert interquartile_mean([1, 2, 3]).estimate == 2  # three seeds: nothing to leave out


def test_intervals_contain_their_estimates():
    x = [3.0, 5.0, 4.0, 9.0, 1.0]
    for interval in (interquartile_mean(x), difference(x, [y + 1 for y in x]), probability_of_improvement(x, x)):
        assert interval.low <= interval.estimate <= interval.high


def test_probability_of_improvement_counts_pairs_and_half_of_ties():
    # Of the pairs (1,2) (1,1) (3,2) (3,1) one is better and one is a tie.
    assert probability_of_improvement([1, 3], [2, 1]).estimate == 1.5 / 4


def test_welch_interval_by_hand():
    # Variances 1 and 4 with three seeds each: the squared standard error is 5/3, with 25/9 / (1/18 + 16/18) = 2.94
    # degrees of freedom, for which Student's 97.5% quantile is 3.22.
    found = difference([1, 2, 3], [8, 10, 12])
    assert found.estimate == 8
    assert found.high - 8 == pytest.approx(3.22 * np.sqrt(5 / 3), rel=0.01)


@pytest.mark.parametrize(
    ("direction", "by", "change", "word"),
    [
        ("higher", 5, [20, 21, 22], "supported"),
        ("higher", 5, [11, 12, 13], "refuted"),  # higher, but by too little
        ("higher", 5, [0, 1, 2], "refuted"),
        ("lower", 5, [0, 1, 2], "supported"),
        ("lower", 0, [20, 21, 22], "refuted"),
        ("same", 5, [10, 11, 12], "supported"),
        ("same", 5, [20, 21, 22], "refuted"),
        ("higher", 5, [0, 15, 60], "inconclusive"),
    ],
)
def test_verdicts(direction, by, change, word):
    judgement = judge([10, 11, 12], change, direction, by)
    assert judgement.word == word
    assert (judgement.more_seeds is not None) == (word == "inconclusive")


def test_more_seeds_are_as_many_as_the_interval_needs_to_exclude_zero():
    baseline, change = [10.0, 12.0, 14.0], [13.0, 15.0, 17.0]
    judgement = judge(baseline, change, "higher", 0)
    assert judgement.word == "inconclusive"
    # With n seeds in place of 3, half of the interval is at most the difference, 3.
    half = judgement.effect.high - judgement.effect.estimate
    assert judgement.more_seeds == int(np.ceil(3 * (half / 3) ** 2)) - 3


def test_equal_numbers_give_a_verdict():
    assert judge([5, 5], [5, 5], "same", 1).word == "supported"
    assert judge([5, 5], [5, 5], "higher", 0).word == "refuted"


def test_equal_arms_with_three_seeds_are_rarely_judged_different():
    """At most 5% of the verdicts on two equal arms are "higher" (10% with a bootstrap)."""
    rng = np.random.default_rng(0)
    words = [judge(*rng.normal(100, 20, size=(2, 3)), "higher", 0).word for _ in range(2000)]
    assert words.count("supported") / len(words) < 0.05


def test_arms_with_equal_seeds_are_the_same():
    """The change has no effect, whatever the spread between seeds."""
    x = [150.6, 197.5, 278.8]
    assert difference(x, x) == (0, 0, 0)
    assert judge(x, x, "same", 1.0).word == "supported"
    assert judge(x, x, "higher", 1.0).word == "refuted"
    assert judge(x, [197.5, 150.6, 278.8], "same", 1.0).word == "inconclusive"  # the same values, but for other seeds


@pytest.mark.parametrize(
    ("seeds", "interval", "expected"),
    [
        (1, Interval(0, 0, 0), "0 (no interval: 1 seed)"),
        (2, Interval(0, 0, 0), "0 (no interval: 2 seeds)"),
        (2, Interval(0.5, 0.1, 0.9), "0.5 (no interval: 2 seeds)"),
        (3, Interval(0, 0, 0), "0 (no interval: all 3 seeds agree)"),
        (3, Interval(0.5, 0.1, 0.9), "0.5 [0.1, 0.9]"),
    ],
)
def test_an_interval_needs_three_seeds(seeds: int, interval: Interval, expected: str) -> None:
    assert interval_in_words(interval, seeds, number="{:g}".format) == expected
    assert (interval_as_json(interval, seeds)["low"] is None) == bool(too_few_seeds(seeds)) == (seeds < 3)


@pytest.mark.parametrize("change", [[20, 21], [20, 20], [0, 1], [10, 900]])
def test_two_seeds_are_inconclusive(change: list[float]) -> None:
    judgement = judge([10, 10], change, "higher", 0)
    assert (judgement.word, judgement.more_seeds) == ("inconclusive", 1)
