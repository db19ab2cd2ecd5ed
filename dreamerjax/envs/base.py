"""The protocol of environments that are stepped together, and the data that they exchange."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dreamerjax.types import Rows, Spaces


class EnvEvent(NamedTuple):
    """Something that happened in an environment and is not in its rows."""

    copy: int
    interrupted: str = ""  # why an episode was cut short, for people; empty: it was not
    metrics: Mapping[str, float] = {}  # of an episode that ended, in addition to return and length
    outside: bool = False  # an observation left the bounds that its space declares
    note: str = ""  # for people
    topic: str = ""  # of the note; one note of each topic is printed


class Goal(NamedTuple):
    """The mean return that an environment itself counts as solved."""

    value: float | None = None  # None: it names none, or one that does not apply here
    reason: str = ""  # where it comes from, or why it does not apply, for people


class EnvInfo(NamedTuple):
    """What is known of an environment once it was made."""

    spaces: Spaces
    goal: Goal


class VectorEnv(ABC):
    """`num_envs` environments, stepped together; each starts a new episode on the step after its last row.

    An interrupted episode shows as a row that `is_first` after one that is not `is_last`. An `EnvEvent` says why.
    """

    spaces: Spaces
    descriptions: tuple[str, ...]  # what is observed and what is done, for people: a line each
    num_envs: int

    @abstractmethod
    def reset(self, seed: int | None = None) -> Rows:
        """Restarts all environments from the seed: the same first episodes each time.

        Args:
            seed: replaces the seed that the environments were made with.

        Returns:
            The first rows: `is_first` everywhere, no reward and no action before.
        """

    @abstractmethod
    def step(self, action: np.ndarray) -> Rows:
        """Takes one action in every environment.

        Args:
            action: [num_envs, A] float32, choices one-hot; vectors are clipped to [-1, 1] and scaled to the
                environment's bounds. An environment whose last row was `is_last` ignores it and starts a new episode.

        Returns:
            The rows of arriving there; `prev_action` is the action as given, 0 where a new episode starts.

        Raises:
            EnvError: the environment fails, or an action, an observation or a reward is not what it should be.
        """

    @abstractmethod
    def end_episodes(self, copies: np.ndarray) -> None:
        """Ends the episodes of these copies, [num_envs] bool: their next step starts new ones, whatever the action."""

    @abstractmethod
    def state(self) -> bytes | None:
        """What `load` needs to continue exactly from here, random numbers included; None: it cannot be saved."""

    @abstractmethod
    def load(self, state: bytes) -> None:
        """Takes over what `state` returned; the number of workers may differ.

        The state is a pickle, which can run code: load only what you trust.

        Raises:
            StateError: the state is of another environment or another number of environments, or cannot be read; then
                call `reset`.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the environments' resources. They cannot be used afterwards."""

    def goal(self) -> Goal:
        """The return that the environment itself counts as solved, if it names one."""
        return Goal()

    def render(self) -> np.ndarray | None:
        """A picture of the first environment, [height, width, 3] uint8; None if the environment draws none.

        Raises:
            RenderError: it should draw one, and cannot.
        """
        return None

    def place(self, seen: np.ndarray) -> bool:
        """Moves the first environment into the state whose observation is `seen` [size], in the middle of an episode.

        Returns:
            False, and nothing is changed, if the environment cannot be moved.
        """
        return False

    def action_names(self) -> list[str]:
        """A name for each number of an action [A]: each choice, each number of a vector. Empty: unknown."""
        return []

    def take_events(self) -> list[EnvEvent]:
        """The events of the last step; a second call returns none."""
        return []

    def random_action(self, generator: np.random.Generator) -> np.ndarray:
        """Uniformly random actions, [num_envs, A] float32: choices one-hot, vectors in [-1, 1]."""
        parts = [
            np.eye(size, dtype=np.float32)[generator.integers(size, size=self.num_envs)]
            if kind == "discrete"
            else generator.uniform(-1.0, 1.0, (self.num_envs, size)).astype(np.float32)
            for kind, size in self.spaces.actions
        ]
        return np.concatenate(parts, axis=-1)


def copy_seeds(seed: int, num_envs: int) -> list[int]:
    """The seed of each environment; the first ones are the same for any number of environments."""
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(num_envs)]
