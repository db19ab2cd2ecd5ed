"""Environments that fail at step 7 of an episode, for the tests of the supervisor.

The observation counts: (a random number of the episode, step, the action that led there). Faults happen once, if the
environment variable `FAULT_ONCE` names a file that is made then; otherwise always.
"""

import faulthandler
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Text

FAULTY_STEP = 7
LENGTH = 12  # of an episode


class Counting(gymnasium.Env):
    """Observes a random number of the episode, the step, and the action before."""

    observation_space = Box(-1e9, 1e9, (3,), np.float64)
    action_space = Discrete(2)

    def __init__(self, fault: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self._fault = fault

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._episode, self._step = int(self.np_random.integers(1_000_000)), 0
        return np.array([self._episode, 0, -1.0]), {}

    def step(self, action: int) -> Any:
        self._step += 1
        obs = np.array([self._episode, self._step, action], np.float64)
        if self._fault and self._step == FAULTY_STEP and _its_turn():
            obs = self._fault(obs)
        over = self._step == LENGTH
        info = {"metrics": {"episode": float(self._episode)}} if over else {}
        return obs, float(self._step), over, False, info


def _its_turn() -> bool:
    once = os.environ.get("FAULT_ONCE")
    if once is None:
        return True
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _raise(obs: np.ndarray) -> np.ndarray:
    raise RuntimeError("the arm is stuck")


def _exit(obs: np.ndarray) -> np.ndarray:
    os._exit(3)


def _crash(obs: np.ndarray) -> np.ndarray:
    faulthandler._sigsegv()  # pyright: ignore[reportAttributeAccessIssue]
    return obs


def _hang(obs: np.ndarray) -> np.ndarray:
    time.sleep(1000)
    return obs


def _show_nan(obs: np.ndarray) -> np.ndarray:
    return np.array([np.nan, *obs[1:]])


def _show_another_shape(obs: np.ndarray) -> np.ndarray:
    return obs[:2]


def _show_another_dtype(obs: np.ndarray) -> np.ndarray:
    return np.array(["a", "b", "c"])


def _show_what_is_outside(obs: np.ndarray) -> np.ndarray:
    return np.array([2e9, *obs[1:]])


# The environments that the tests make, by name.
well = Counting
raises = partial(Counting, _raise)
exits = partial(Counting, _exit)
crashes = partial(Counting, _crash)
hangs = partial(Counting, _hang)
shows_nan = partial(Counting, _show_nan)
shows_another_shape = partial(Counting, _show_another_shape)
shows_another_dtype = partial(Counting, _show_another_dtype)
shows_what_is_outside = partial(Counting, _show_what_is_outside)


def meets() -> gymnasium.Env:
    def fault(obs: np.ndarray) -> np.ndarray:
        """Waits until two processes have added a file to the folder of the environment variable `MEETING`."""
        meeting = Path(os.environ["MEETING"])
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < 2:
            time.sleep(0.01)
        return obs

    return Counting(fault)


def is_slow_to_make() -> gymnasium.Env:
    time.sleep(1.5)
    return Counting()


def cannot_be_made() -> gymnasium.Env:
    raise RuntimeError("no simulator here")


def talks() -> gymnasium.Env:
    env = Counting()
    env.observation_space = Text(5)
    return env
