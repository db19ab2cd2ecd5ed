"""The result of a sweep: for each point the metric, and the final return, peak and pattern of its learning curves."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamerjax.study.sweep_plan import Point, SweepPlan
from dreamerjax.viz.curve_shape import final_return, pattern, peak_return


class RunCurve(NamedTuple):
    """One seed of a point: its run folder, and its greedy returns [evaluations] at these steps [evaluations]."""

    folder: Path
    steps: np.ndarray  # in the `unit` of the result
    returns: np.ndarray


class PointResult(NamedTuple):
    """The result of one point."""

    point: Point
    values: tuple[float, ...]  # the metric by seed; empty if it was pruned
    runs: Sequence[RunCurve] = ()  # by seed
    pruned_at: int | None = None  # environment steps

    @property
    def mean(self) -> float:
        """Mean of the metric over the seeds; NaN if pruned."""
        return float(np.mean(self.values)) if self.values else float("nan")

    @property
    def ended(self) -> bool:
        """Whether all seeds are finished and have an evaluation."""
        return bool(self.values) and bool(self.runs) and all(len(run.returns) for run in self.runs)

    @property
    def final(self) -> float:
        """The mean of the seeds' final returns (`curve_shape.final_return`); NaN if not `ended`."""
        return float(np.mean([final_return(run.returns) for run in self.runs])) if self.ended else float("nan")

    @property
    def peak(self) -> float:
        """The mean of the seeds' peak returns (`curve_shape.peak_return`); NaN if not `ended`."""
        return float(np.mean([peak_return(run.returns) for run in self.runs])) if self.ended else float("nan")

    @property
    def pattern(self) -> str:
        """The pattern of the seeds' learning curves (`curve_shape.pattern`), with counts if they differ."""
        found = Counter(pattern(run.returns) for run in self.runs)
        return next(iter(found)) if len(found) == 1 else ", ".join(f"{word} {n}" for word, n in found.most_common())


class SweepResult(NamedTuple):
    """The result of a sweep."""

    plan: SweepPlan
    points: Sequence[PointResult]  # in the order of the plan
    unit: str  # "updates" or "environment steps"
    seconds: float
