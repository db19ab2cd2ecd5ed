"""Curves of block characters."""

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """A curve of one character a value: ▁▂▃▅▇.

    More values than `width` are averaged in `width` equal parts. The lowest becomes ▁ and the highest █; a constant
    series is drawn at half height, a part without finite values as a blank.

    Args:
        values: the series, oldest first.
        width: the most characters to use.

    Returns:
        `min(len(values), width)` characters.
    """
    points = _resample(values, width)
    finite = [point for point in points if point is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(" " if point is None else _bar(point, low, high) for point in points)


def _resample(values: Sequence[float], width: int) -> list[float | None]:
    """The mean of the finite values in each of at most `width` equal parts; None where there is none."""
    parts = min(len(values), width)
    edges = [part * len(values) // parts for part in range(parts + 1)] if parts > 0 else []
    points: list[float | None] = []
    for start, end in pairwise(edges):
        finite = [float(value) for value in values[start:end] if math.isfinite(value)]
        points.append(sum(value / len(finite) for value in finite) if finite else None)
    return points


def _bar(value: float, low: float, high: float) -> str:
    top = len(BARS) - 1
    half_span = high / 2 - low / 2  # halves, so that float64's whole range fits
    if half_span <= 1e-9 * max(abs(low), abs(high)):
        return BARS[top // 2]  # constant, but for rounding in the means
    return BARS[round((value / 2 - low / 2) / half_span * top)]
