"""Environments: many copies of one environment, stepped together, as the agent sees them.

An environment's id is `family:ID`, such as `gym:CartPole-v1`. A family of environments is one file of
this folder and one line in `FAMILIES`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from dreamerjax.types import Rows, Spaces


class EnvError(ValueError):
    """Something about an environment that the user can put right; the message says what."""


class UnknownEnvironmentError(EnvError):
    """There is no environment of that name, or it is not installed."""


class UnsupportedSpaceError(EnvError):
    """The environment observes or acts in a way that the agent cannot handle."""


class VectorEnv(ABC):
    """`copies` environments, stepped together; each starts a new episode on the step after its last row."""

    spaces: Spaces
    copies: int

    @abstractmethod
    def reset(self, seed: int | None = None) -> Rows:
        """Starts all copies anew from the seed: the same first episodes each time.

        Args:
            seed: another seed than the one that the environments were made with, from now on.

        Returns:
            The first rows: `is_first` everywhere, no reward and no action before.
        """

    @abstractmethod
    def step(self, action: np.ndarray) -> Rows:
        """Takes one action in every copy.

        Args:
            action: [copies, A] float32, one-hot or a vector; vectors are clipped to [-1, 1] and scaled to the
                environment's bounds. A copy whose last row was `is_last` ignores it and starts a new episode.

        Returns:
            The rows of arriving there; `prev_action` is the action as given, 0 where a new episode starts.

        Raises:
            EnvError: an action, an observation or a reward is not finite.
        """

    @abstractmethod
    def state(self) -> bytes | None:
        """What `load` needs to go on exactly here, random numbers included; None if there is no such thing."""

    @abstractmethod
    def load(self, state: bytes) -> None:
        """Takes over what `state` returned. It is a pickle, which can run code: load none that you do not trust.

        Raises:
            EnvError: the state is of another environment or another number of copies, or cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees what the environments hold. They cannot be used afterwards."""

    def random_action(self, generator: np.random.Generator) -> np.ndarray:
        """A uniformly random action for every copy, [copies, A] float32: one-hot, or a vector in [-1, 1]."""
        kind, size = self.spaces.action
        if kind == "discrete":
            return np.eye(size, dtype=np.float32)[generator.integers(size, size=self.copies)]
        return generator.uniform(-1.0, 1.0, (self.copies, size)).astype(np.float32)


class Family(NamedTuple):
    """A source of environments."""

    make: Callable[[str, int, int], VectorEnv]  # (ID, copies, seed)
    closest: Callable[[str], str | None]  # any name -> the ID that was probably meant


def _make_gym(name: str, copies: int, seed: int) -> VectorEnv:
    from dreamerjax.host.envs import gym

    return gym.GymVectorEnv(name, copies=copies, seed=seed)


def _closest_gym(name: str) -> str | None:
    from dreamerjax.host.envs import gym

    return gym.closest(name)


# Each family imports its libraries only when it is used.
FAMILIES: Mapping[str, Family] = {"gym": Family(_make_gym, _closest_gym)}


def make_env(env_id: str, *, copies: int, seed: int) -> VectorEnv:
    """Makes the copies of an environment.

    Args:
        env_id: `family:ID`, such as `gym:CartPole-v1`.
        copies: environments that are stepped together.
        seed: of all their randomness; each copy gets its own part of it.

    Raises:
        UnknownEnvironmentError: there is no such family or environment, or something that it needs is not installed.
        UnsupportedSpaceError: the agent cannot handle its observations or actions.
    """
    family, colon, name = env_id.partition(":")
    if family in FAMILIES and colon:
        return FAMILIES[family].make(name, copies, seed)
    problem = f"has an unknown family, '{family}'" if colon else "names no family"
    ids = ((known, entry.closest(candidate)) for candidate in (name, env_id) for known, entry in FAMILIES.items())
    meant = next((f" Did you mean `{known}:{found}`?" for known, found in ids if found), "")
    known = ", ".join(f"{name}:ID" for name in FAMILIES)
    raise UnknownEnvironmentError(f"The environment `{env_id}` {problem}, expected {known}.{meant}")
