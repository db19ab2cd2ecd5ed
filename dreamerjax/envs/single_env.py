"""A single environment for playing episodes: a new one, or the first of the training environments."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvEvent, VectorEnv, make_env
from dreamerjax.types import Rows


@contextlib.contextmanager
def single_env(config: EnvConfig, *, seed: int, lent: VectorEnv | None = None) -> Iterator[VectorEnv]:
    """A new environment, closed at the end; or the first of those in `lent`, which stay open.

    Raises:
        EnvError: the environment cannot be made.
    """
    if lent is not None:
        yield FirstEnv(lent)
        return
    env = make_env(dataclasses.replace(config, workers=0), num_envs=1, seed=seed)
    try:
        yield env
    finally:
        env.close()


class FirstEnv(VectorEnv):
    """The first of several environments; the others are stepped with the same actions."""

    def __init__(self, several: VectorEnv) -> None:
        """Wraps environments that the caller owns and closes."""
        self._several = several
        self.spaces, self.descriptions, self.num_envs = several.spaces, several.descriptions, 1

    def reset(self, seed: int | None = None) -> Rows:
        """See `VectorEnv.reset`."""
        return _first(self._several.reset(seed))

    def step(self, action: np.ndarray) -> Rows:
        """See `VectorEnv.step`."""
        return _first(self._several.step(action.repeat(self._several.num_envs, axis=0)))

    def end_episodes(self, copies: np.ndarray) -> None:
        """See `VectorEnv.end_episodes`."""
        self._several.end_episodes(copies.repeat(self._several.num_envs))

    def render(self) -> np.ndarray | None:
        """See `VectorEnv.render`."""
        return self._several.render()

    def place(self, seen: np.ndarray) -> bool:
        """See `VectorEnv.place`."""
        return self._several.place(seen)

    def take_events(self) -> list[EnvEvent]:
        """See `VectorEnv.take_events`."""
        return [event for event in self._several.take_events() if event.copy == 0]

    def state(self) -> bytes | None:
        """None: the state of a single environment cannot be saved."""
        return None

    def load(self, state: bytes) -> None:
        """Not available: see `state`."""
        raise AssertionError("a single environment has no saved state")

    def close(self) -> None:
        """Does nothing: the caller closes the environments."""


def _first(rows: Rows) -> Rows:
    return jax.tree.map(lambda leaf: leaf[:1], rows)
