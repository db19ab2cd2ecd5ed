"""What an environment shows and lets do, as the agent sees it: from Gymnasium's spaces to `Spaces`, and values back.

    observation space                               the agent sees
    Box of floats, or of integers, of any rank      a vector, flattened
    Box of uint8 of rank 2 or 3                     an image, cropped and resized
    Discrete, MultiDiscrete, MultiBinary, bool      integers
    Dict or Tuple of all these, nested              one key each: `arm.joints`, `camera`

    action space                                    the agent chooses
    Discrete, MultiDiscrete, MultiBinary, small     one of n, for each number
      Box of integers
    Box of floats with finite bounds                a vector in -1 ... 1, scaled to the bounds
    Dict or Tuple of all these, nested              all parts together

Values are handled for all copies at once, stacked: a check costs the same for sixteen copies as for one.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from dreamerjax.config import ImageConfig
from dreamerjax.host.envs import UnsupportedSpaceError
from dreamerjax.host.envs.pixels import Shrink
from dreamerjax.types import ActionSpec, ObsSpec

ALONE = "state"  # the key of an observation that is not a dictionary
ALONE_IMAGE = "image"  # the same, of an image
MOST_CLASSES = 65_536  # of integers as one-hot: more would be a network's whole size
MOST_CHOICES = 256  # of one number of a Box of integers that is chosen
LARGEST = float(np.finfo(np.float32).max)
LEEWAY = 1e-4  # how far a float may be outside of its bounds, for rounding, as a share of their distance

OBSERVATIONS = (
    "Supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of those; gymnasium.wrappers may "
    "make it into one."
)
ACTIONS = (
    "Supported are Discrete, MultiDiscrete, MultiBinary, Box with finite bounds, and Dict and Tuple of those; "
    "gymnasium.wrappers.RescaleAction or a wrapper of your own may make it into one."
)


class BadValueError(ValueError):
    """An observation is not what its space promised; the message says in which way."""


# Observations


class Observation(NamedTuple):
    """One leaf of an observation space."""

    spec: ObsSpec
    raw_shape: tuple[int, ...]  # of the value that the environment gives
    kinds: str  # numpy's letters for the dtypes that the value may have
    low: np.ndarray | None  # bounds that it must keep, in the raw shape, those of float32 at least; None: any will do
    high: np.ndarray | None
    prepare: Callable[[np.ndarray], np.ndarray]  # one raw value, checked -> what is stored

    def take(self, value: Any) -> np.ndarray:
        """Checks one value of the environment, and makes of it what the agent sees.

        Raises:
            BadValueError: it has another shape or dtype, is not finite or out of bounds.
        """
        value = np.asarray(value)
        if value.shape != self.raw_shape:
            raise BadValueError(f"has the shape {value.shape}, expected {self.raw_shape}")
        if value.dtype.kind not in self.kinds:
            raise BadValueError(f"has the dtype {value.dtype}, expected {self._expected_dtype()}")
        if self.low is not None and not ((value >= self.low) & (value <= self.high)).all():  # nor NaN
            finite = (np.abs(value) <= LARGEST).all()
            raise BadValueError(f"is {'outside of its space' if finite else 'not finite'}: {_brief(value)}")
        return self.prepare(value)

    def _expected_dtype(self) -> str:
        return {"f": "numbers", "u": "uint8"}.get(self.kinds[0], "integers")


def observation_leaves(space: gymnasium.Space, image: ImageConfig, *, label: str) -> list[Observation]:
    """The leaves of an observation space, in the order of `flat_values`.

    Args:
        space: of one environment.
        image: how images are made small.
        label: of the environment, for errors.

    Raises:
        UnsupportedSpaceError: a leaf cannot be seen; the message names it.
    """
    leaves = []
    for path, part in _flat_spaces(space):
        leaf = _observation(path, part, image)
        if leaf is None:
            name = path or ALONE
            raise UnsupportedSpaceError(
                f"{label}: the observation '{name}' is {_short(part)}, which is not supported.\n{OBSERVATIONS}"
            )
        leaves.append(leaf._replace(spec=leaf.spec._replace(name=_free_name(leaf.spec.name, leaves))))
    if not leaves:
        raise UnsupportedSpaceError(f"{label}: the observation is an empty {type(space).__name__}.\n{OBSERVATIONS}")
    return leaves


def flat_values(space: gymnasium.Space, value: Any) -> Iterator[Any]:
    """The leaves of a value of the space, in order.

    Raises:
        BadValueError: it is no dictionary with the keys of the space, or no tuple of its length.
    """
    if isinstance(space, Dict):
        if not isinstance(value, dict) or not value.keys() >= set(space.keys()):
            given = f"the keys {list(value)}" if isinstance(value, dict) else type(value).__name__
            raise BadValueError(f"is {given}, expected a dictionary with {list(space.keys())}")
        for key, part in space.items():
            yield from flat_values(part, value[key])
    elif isinstance(space, Tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(space.spaces):
            raise BadValueError(f"is {type(value).__name__}, expected a tuple of {len(space.spaces)}")
        for part, inner in zip(space.spaces, value, strict=True):
            yield from flat_values(part, inner)
    else:
        yield value


def _flat_spaces(space: gymnasium.Space, path: str = "") -> Iterator[tuple[str, gymnasium.Space]]:
    if isinstance(space, (Dict, Tuple)):
        parts = space.items() if isinstance(space, Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _flat_spaces(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, space


def _free_name(name: str, leaves: Sequence[Observation]) -> str:
    """The name of the next leaf, which files and checkpoints can hold, and which no other leaf has.

    `a.b` may be a key of its own, and also `b` in a dictionary `a`: one of them is `a.b_2`.
    """
    name = name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    taken = {leaf.spec.name for leaf in leaves}
    others = (f"{name}_{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], others) if free not in taken)


def _observation(path: str, space: gymnasium.Space, image: ImageConfig) -> Observation | None:
    name = path or ALONE
    if isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3) and space.low.size:
        shrink = Shrink(image, space.shape, f"the observation '{path or ALONE_IMAGE}'")
        return Observation(ObsSpec(path or ALONE_IMAGE, shrink.shape), space.shape, "u", None, None, shrink)
    if isinstance(space, (Discrete, MultiDiscrete, MultiBinary)) or (isinstance(space, Box) and space.dtype == bool):
        return _integers(name, space)
    if isinstance(space, Box) and space.low.size and space.dtype.kind in "iuf":
        spec = ObsSpec(name, (space.low.size,))
        return Observation(spec, space.shape, "fiub", *_bounds(space), _as_float32)
    return None


def _integers(name: str, space: gymnasium.Space) -> Observation | None:
    start: Any = getattr(space, "start", 0)
    counts = getattr(space, "nvec", None)  # of MultiDiscrete
    classes = int(space.n) if isinstance(space, Discrete) else 2 if counts is None else int(np.max(counts))
    shape = tuple(space.shape or ())
    if not 0 < classes * math.prod(shape) <= MOST_CLASSES:
        return None
    spec = ObsSpec(name, shape, classes)
    low = np.broadcast_to(np.asarray(start), shape)
    high = low + (classes if counts is None else counts) - 1
    return Observation(spec, shape, "iub", low, high, lambda value: (value - low).astype(spec.dtype))


def _as_float32(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32).reshape(-1)


def _bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """What a value must keep, with some leeway for rounding."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        leeway = LEEWAY * np.where(np.isfinite(high - low), high - low, 1 + np.minimum(np.abs(low), np.abs(high)))
        return np.maximum(low - leeway, -LARGEST), np.minimum(high + leeway, LARGEST)


# Actions


class Action(ABC):
    """One leaf of an action space, or a dictionary or tuple of them."""

    specs: list[ActionSpec]

    @property
    def size(self) -> int:
        """Length of its part of an action."""
        return sum(spec.size for spec in self.specs)

    @abstractmethod
    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        """[copies, size] -> an action of the environment for each copy."""


class _Choice(Action):
    def __init__(self, count: int, start: int) -> None:
        self.specs, self._start = [ActionSpec("discrete", count)], start

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        return self._start + action.argmax(axis=-1)


class _Choices(Action):
    """An array of choices."""

    def __init__(self, counts: np.ndarray, start: np.ndarray, dtype: np.dtype) -> None:
        self.specs = [ActionSpec("discrete", int(count)) for count in counts.ravel()]
        self._ends = np.cumsum(counts.ravel())[:-1]
        self._start, self._shape, self._dtype = start, counts.shape, dtype

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        chosen = [part.argmax(-1) for part in np.split(action, self._ends, -1)]
        return (np.stack(chosen, -1).reshape(-1, *self._shape) + self._start).astype(self._dtype)


class _Vector(Action):
    def __init__(self, space: Box) -> None:
        self.specs = [ActionSpec("continuous", space.low.size)]
        self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
        self._dtype = space.dtype

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        action = action.reshape(-1, *self._low.shape)
        scaled = self._low + 0.5 * (action + 1.0) * (self._high - self._low)
        return np.clip(scaled, self._low, self._high).astype(self._dtype)


class _Several(Action):
    def __init__(self, parts: Sequence[Action], join: Callable[[tuple], Any]) -> None:
        self.specs = [spec for part in parts for spec in part.specs]
        self._parts, self._join = parts, join
        self._ends = np.cumsum([part.size for part in parts])[:-1]

    def to_env(self, action: np.ndarray) -> Iterable[Any]:
        slices = np.split(action, self._ends, -1)
        each = [part.to_env(own) for part, own in zip(self._parts, slices, strict=True)]
        return [self._join(values) for values in zip(*each, strict=True)]


def action_of(space: gymnasium.Space, *, label: str) -> Action:
    """What the agent can do in an action space.

    Args:
        space: of one environment.
        label: of the environment, for errors.

    Raises:
        UnsupportedSpaceError: a part of it cannot be chosen; the message names it.
    """
    action = _action(space, label, "")
    if not action.specs:
        raise UnsupportedSpaceError(f"{label}: the action is an empty {type(space).__name__}.\n{ACTIONS}")
    return action


def _action(space: gymnasium.Space, label: str, path: str) -> Action:
    if isinstance(space, (Dict, Tuple)):
        items = list(space.items() if isinstance(space, Dict) else enumerate(space.spaces))
        parts = [_action(part, label, f"{path}.{key}" if path else str(key)) for key, part in items]
        keys = [key for key, _ in items]
        if isinstance(space, Tuple):
            return _Several(parts, tuple)
        return _Several(parts, lambda values: dict(zip(keys, values, strict=True)))
    if isinstance(space, Discrete):
        return _Choice(int(space.n), int(space.start))
    if isinstance(space, MultiDiscrete):
        return _Choices(space.nvec, space.start, space.dtype)
    if isinstance(space, MultiBinary):
        return _Choices(np.full(space.shape, 2), np.zeros(space.shape, np.int64), space.dtype)
    if isinstance(space, Box) and space.low.size and space.is_bounded():
        if space.dtype.kind == "f":
            return _Vector(space)
        counts = space.high.astype(np.int64) - space.low.astype(np.int64) + 1
        if space.dtype.kind in "iub" and counts.max() <= MOST_CHOICES:
            return _Choices(counts, space.low.astype(np.int64), space.dtype)
    what = f"the action '{path}'" if path else "the action"
    raise UnsupportedSpaceError(f"{label}: {what} is {_short(space)}, which is not supported.\n{ACTIONS}")


def _short(space: gymnasium.Space) -> str:
    """The space in one line."""
    return _cut(" ".join(repr(space).split()))


def _brief(value: np.ndarray) -> str:
    return _cut(" ".join(str(value).split()))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
