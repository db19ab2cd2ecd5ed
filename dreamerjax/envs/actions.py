"""Converts Gymnasium's action spaces to `ActionSpec`s, and the agent's actions back to those of the environment.

    action space                                    the agent chooses
    Discrete, MultiDiscrete, MultiBinary, small     one of n, for each number
      Box of integers
    Box of floats with finite bounds                a vector in -1 ... 1, scaled to the bounds
    Dict or Tuple of all these, nested              all parts together

Actions are converted for all environments at once: sixteen environments cost the same as one.
"""

import collections
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from dreamerjax.envs import UnsupportedSpaceError
from dreamerjax.envs.names import brief, joined
from dreamerjax.types import ActionSpec

MOST_CHOICES = 256  # of one number of a Box of integers

ACTIONS = (
    "Supported: Discrete, MultiDiscrete, MultiBinary, Box with finite bounds, and Dict and Tuple of these. "
    "gymnasium.wrappers.RescaleAction or your own wrapper may convert it."
)


class Action(ABC):
    """One leaf of an action space, or a dictionary or tuple of leaves."""

    specs: list[ActionSpec]
    names: list[str]  # [size] of each choice, and of each number of a vector, from the keys of the space

    @property
    def description(self) -> str:
        """For messages: "one of 4", "a vector of 2"."""
        kinds = {"discrete": "one of", "continuous": "a vector of"}
        parts = [f"{kinds[spec.kind]} {spec.size}" for spec in self.specs]
        counts = collections.Counter(parts)
        return " and ".join(part if count == 1 else f"{count} times {part}" for part, count in counts.items())

    @property
    def size(self) -> int:
        """Length of this part of the agent's action vector."""
        return sum(spec.size for spec in self.specs)

    @abstractmethod
    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        """[num_envs, size] -> one action for each environment."""


class _Choice(Action):
    def __init__(self, count: int, start: int, path: str) -> None:
        self.specs, self._start = [ActionSpec("discrete", count)], start
        self.names = [f"{path or 'action'} {i + 1}" for i in range(count)]

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        return self._start + action.argmax(axis=-1)


class _Choices(Action):
    """An array of choices."""

    def __init__(self, counts: np.ndarray, start: np.ndarray, dtype: np.dtype, path: str) -> None:
        self.specs = [ActionSpec("discrete", int(count)) for count in counts.ravel()]
        self.names = [
            f"{path or 'part'} {part + 1}: {i + 1}" for part, spec in enumerate(self.specs) for i in range(spec.size)
        ]
        self._ends = np.cumsum(counts.ravel())[:-1]
        self._start, self._shape, self._dtype = start, counts.shape, dtype

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        chosen = [part.argmax(-1) for part in np.split(action, self._ends, -1)]
        return (np.stack(chosen, -1).reshape(-1, *self._shape) + self._start).astype(self._dtype)


class _Vector(Action):
    def __init__(self, space: Box, path: str) -> None:
        size = space.low.size
        self.specs = [ActionSpec("continuous", size)]
        self.names = [path or "action"] if size == 1 else [f"{path or 'axis'} {i + 1}" for i in range(size)]
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._dtype = space.dtype

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        action = action.reshape(-1, *self._low.shape)
        scaled = self._low + 0.5 * (action + 1.0) * (self._high - self._low)
        return np.clip(scaled, self._low, self._high).astype(self._dtype)


class _Several(Action):
    def __init__(self, parts: Sequence[Action], join: Callable[[tuple], Any]) -> None:
        self.specs = [spec for part in parts for spec in part.specs]
        self.names = [name for part in parts for name in part.names]
        self._parts, self._join = parts, join
        self._ends = np.cumsum([part.size for part in parts])[:-1]

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        slices = np.split(action, self._ends, -1)
        each = [part.to_env(own) for part, own in zip(self._parts, slices, strict=True)]
        return [self._join(values) for values in zip(*each, strict=True)]


def action_of(space: gymnasium.Space, *, label: str) -> Action:
    """Converts an action space.

    Args:
        space: of one environment.
        label: of the environment, for errors.

    Raises:
        UnsupportedSpaceError: a part of the space is not supported; the message names it.
    """
    action = _action(space, label, "")
    if not action.specs:
        raise UnsupportedSpaceError(f"{label}: the action is an empty {type(space).__name__}.\n{ACTIONS}")
    return action


def _action(space: gymnasium.Space, label: str, path: str) -> Action:
    if isinstance(space, (Dict, Tuple)):
        items = list(space.items() if isinstance(space, Dict) else enumerate(space.spaces))
        parts = [_action(part, label, joined(path, key)) for key, part in items]
        keys = [key for key, _ in items]
        if isinstance(space, Tuple):
            return _Several(parts, tuple)
        return _Several(parts, lambda values: dict(zip(keys, values, strict=True)))
    if isinstance(space, Discrete):
        return _Choice(int(space.n), int(space.start), path)
    if isinstance(space, MultiDiscrete):
        return _Choices(space.nvec, space.start, space.dtype, path)
    if isinstance(space, MultiBinary):
        return _Choices(np.full(space.shape, 2), np.zeros(space.shape, np.int64), space.dtype, path)
    if isinstance(space, Box) and space.low.size and space.is_bounded():
        if space.dtype.kind == "f":
            return _Vector(space, path)
        counts = space.high.astype(np.int64) - space.low.astype(np.int64) + 1
        if space.dtype.kind in "iub" and counts.max() <= MOST_CHOICES:
            return _Choices(counts, space.low.astype(np.int64), space.dtype, path)
    what = f"the action '{path}'" if path else "the action"
    raise UnsupportedSpaceError(f"{label}: {what} is {brief(space)}, which is not supported.\n{ACTIONS}")
