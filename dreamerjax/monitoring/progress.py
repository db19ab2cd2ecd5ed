"""The progress of a run, and its remaining time."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PACE_WINDOW_SECONDS = 60.0  # time left is estimated from the speed over this long
PACE_LEAST_SECONDS = 5.0  # ... and this long at the least
WARMING_UPDATES = 20  # of this process, not measured: the first ones after a compilation are slow
STEADY_PHASES = ("training", "evaluating")  # phases whose speed predicts the end of the run


class Progress(NamedTuple):
    """How far a run is. None and empty containers mean "not yet"."""

    phase: str  # prefill, compiling, world-model warm-up, training, evaluating, filming, saving, solved, ...
    env_steps: int
    env_steps_budget: int
    updates: int
    wall_seconds: float
    env_steps_per_second: float | None = None
    updates_per_second: float | None = None
    returns: Sequence[float] = ()  # of every training episode so far, oldest first; may grow while it is shown
    eval_mean: float | None = None  # of the last evaluation, as the next two
    eval_std: float | None = None
    eval_episodes: int = 0
    solve_return: float | None = None  # None: the environment does not say when it is solved
    metrics: Mapping[str, float] = {}  # name -> newest value; SHOWN_METRICS says which are shown
    alerts: Sequence[str] = ()  # names of all that were raised so far
    detail: str = ""  # of the phase, a few words: "37 of 100 episodes"


class Pace:
    """Speed over the recent past, from one sample a second at most, once enough updates were made."""

    def __init__(self) -> None:
        """No samples yet."""
        self._samples: deque[tuple[float, int]] = deque()  # wall seconds, environment steps
        self._first: int | None = None  # updates that earlier processes had made

    def add(self, progress: Progress) -> None:
        """Takes a sample, unless there was one within a second."""
        self._first = progress.updates if self._first is None else self._first
        if progress.phase not in STEADY_PHASES or progress.updates - self._first < WARMING_UPDATES:
            self._samples.clear()  # prefill is faster than training, compilation slower
            return
        if self._samples and progress.wall_seconds - self._samples[-1][0] < 1.0:
            return
        self._samples.append((progress.wall_seconds, progress.env_steps))
        while progress.wall_seconds - self._samples[0][0] > PACE_WINDOW_SECONDS and len(self._samples) > 2:
            self._samples.popleft()

    def seconds_left(self, progress: Progress) -> float | None:
        """Seconds until the budget is spent at the recent speed; None while that is unknown."""
        try:
            began_at, began_with = self._samples[0]
        except IndexError:  # the drawing thread may ask just after `clear`
            return None
        seconds, steps = progress.wall_seconds - began_at, progress.env_steps - began_with
        if seconds < PACE_LEAST_SECONDS or steps <= 0:
            return None
        return max(0, progress.env_steps_budget - progress.env_steps) * seconds / steps
