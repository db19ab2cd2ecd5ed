"""What a sweep found: for each point the metric, and what each seed's learning curve comes to."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dreamerjax.study.sweep_plan import Point, SweepPlan
from dreamerjax.viz.course import final_return, pattern, peak_return


class RunCurve(NamedTuple):
    """One seed of a point: its run folder, and its greedy returns [evaluations] at these steps [evaluations]."""

    folder: Path
    steps: np.ndarray  # in the `unit` of the result
    returns: np.ndarray


class PointResult(NamedTuple):
    """What a point of the sweep came to."""

    point: Point
    values: tuple[float, ...]  # the metric by seed; empty if it was pruned
    runs: Sequence[RunCurve] = ()  # by seed
    pruned_at: int | None = None  # environment steps

    @property
    def mean(self) -> float:
        """Of the metric over the seeds; NaN if it was pruned."""
        return float(np.mean(self.values)) if self.values else float("nan")

    @property
    def ended(self) -> bool:
        """Whether all of its seeds ran to their end, and were evaluated."""
        return bool(self.values) and bool(self.runs) and all(len(run.returns) for run in self.runs)

    @property
    def final(self) -> float:
        """The mean of the seeds' final returns (`course.final_return`); NaN if it has not ended."""
        return float(np.mean([final_return(run.returns) for run in self.runs])) if self.ended else float("nan")

    @property
    def peak(self) -> float:
        """The mean of the seeds' peak returns (`course.peak_return`); NaN if it has not ended."""
        return float(np.mean([peak_return(run.returns) for run in self.runs])) if self.ended else float("nan")

    @property
    def pattern(self) -> str:
        """How the seeds' learning curves go (`course.pattern`), with their numbers where they do not all go alike."""
        found = Counter(pattern(run.returns) for run in self.runs)
        return next(iter(found)) if len(found) == 1 else ", ".join(f"{word} {n}" for word, n in found.most_common())


class SweepResult(NamedTuple):
    """What a sweep found."""

    plan: SweepPlan
    points: Sequence[PointResult]  # in the order of the plan
    unit: str  # "updates" or "environment steps"
    seconds: float
