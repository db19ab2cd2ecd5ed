"""Summary of a learning curve: its final return, its peak and its pattern.

The table of a sweep, the metrics of experiments, comparisons and the report of a run use these.
"""

from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

FEWEST = 3  # evaluations, to tell how a curve goes
FLAT = 0.05  # of the largest return: all returns lie within it
FALLEN = 0.2  # of the way from the lowest to the highest return, below the peak at the end: a decline
RISING = 0.1  # of that way, from the middle third to the last
EXPLAINED = 0.6  # of the variance, at least, by a rise and a fall: less is up and down

Pattern = Literal["rising", "plateau", "peak then decline", "up and down", "too few to tell"]


def final_return(returns: np.ndarray) -> float:
    """The final return of a run: the mean greedy return of its last evaluation, the one that closes the run.

    Of several seeds, it is the mean of their final returns.

    Args:
        returns: [evaluations], one or more, oldest first.
    """
    return float(returns[-1])


def peak_return(returns: np.ndarray) -> float:
    """The highest mean greedy return of an evaluation of a run; of several seeds, the mean of theirs.

    Args:
        returns: [evaluations], one or more.
    """
    return float(np.max(returns))


def pattern(returns: np.ndarray) -> Pattern:
    """How the learning curve of one run goes.

    A rise followed by a fall is fitted to the curve (either may be missing), so that one evaluation more or less
    decides nothing. In this order: "plateau" if all returns lie within 5% of the largest; "up and down" if the fit
    explains less than 60% of the variance; "peak then decline" if the fit ends more than 20% of the range below its
    peak; "rising" if the mean of the last third is above that of the second by more than 10% of the range; else
    "plateau".

    Args:
        returns: [evaluations], oldest first.
    """
    if len(returns) < FEWEST:
        return "too few to tell"
    low, high = float(returns.min()), float(returns.max())
    if high - low <= FLAT * max(abs(low), abs(high), 1.0):
        return "plateau"
    fit = _rise_and_fall(returns)
    if np.square(returns - fit).sum() > (1 - EXPLAINED) * np.square(returns - returns.mean()).sum():
        return "up and down"
    if fit.max() - fit[-1] > FALLEN * (high - low):
        return "peak then decline"
    thirds = np.array_split(returns, 3)
    return "rising" if thirds[-1].mean() - thirds[1].mean() > RISING * (high - low) else "plateau"


def _rise_and_fall(returns: np.ndarray) -> np.ndarray:
    """The curve [n] that rises up to some point and falls from there, with the least squared error."""

    def split_at(n: int) -> np.ndarray:
        parts = ((returns[:n], True), (returns[n:], False))
        return np.concatenate([isotonic_regression(part, increasing=up).x for part, up in parts if len(part)])

    fits = (split_at(n) for n in range(len(returns), -1, -1))
    return min(fits, key=lambda fit: float(np.square(returns - fit).sum()))
