"""What an environment shows, as the agent sees it: from Gymnasium's observation spaces to `ObsSpec`s.

observation space                               the agent sees
Box of floats, of any rank                      a vector, flattened
Box of integers, of at most 32 values           integers
Box of uint8 that is a picture by its shape     an image, cropped and resized (`pictures.py`)
any other Box of integers                       a vector, flattened
Discrete, MultiDiscrete, MultiBinary, bool      integers
Dict or Tuple of all these, nested              one key each: `arm.joints`, `camera`
"""

import collections
import difflib
import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import UnsupportedSpaceError
from dreamerjax.envs.names import brief, joined
from dreamerjax.envs.pictures import SMALLEST, Picture, PictureBox, UnclearLayoutError, picture_of
from dreamerjax.envs.pixels import Shrink
from dreamerjax.types import ObsSpec

ALONE = "state"  # the key of an observation that is not a dictionary
ALONE_IMAGE = "image"  # the same, of an image
MOST_CLASSES = 65_536  # of integers as one-hot: more would be a network's whole size
MOST_VALUES = 32  # of one number of a Box of integers that is seen as classes
LARGEST = float(np.finfo(np.float32).max)
LEEWAY = 1e-4  # how far a float may be outside of its bounds, for rounding, as a share of their distance
ROUNDING = 1e-6  # ... and at the least, as a share of the bound itself

OBSERVATIONS = (
    "Supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of those; gymnasium.wrappers may "
    "make it into one."
)


class BadValueError(ValueError):
    """An observation is not what its space promised; the message says in which way."""


class Taken(NamedTuple):
    """What the agent sees of one value."""

    value: np.ndarray  # as it is stored
    outside: str = ""  # where it leaves the bounds that its space declares; empty: it keeps them


class Observation(NamedTuple):
    """One leaf of an observation space."""

    spec: ObsSpec
    description: str  # how it is seen, for people
    raw_shape: tuple[int, ...]  # of the value that the environment gives
    kinds: str  # numpy's letters for the dtypes that the value may have
    prepare: Callable[[np.ndarray], np.ndarray]  # one raw value, checked -> what is stored
    low: np.ndarray | None = None  # bounds in the raw shape, those of float32 at least; None: any value will do
    high: np.ndarray | None = None
    declared: Box | None = None  # the space that says them, if they are no more than words; None: beyond is no class

    def take(self, value: Any) -> Taken:
        """Checks one value of the environment, and makes of it what the agent sees.

        Declared bounds are no promise in Gymnasium: a finite number outside of them is taken, and told.

        Raises:
            BadValueError: it has another shape or dtype, is not finite, or is an integer that has no class.
        """
        given, value = value, np.asarray(value)
        if value.shape != self.raw_shape:
            shape = "is None" if given is None else f"has the shape {value.shape}"
            raise BadValueError(f"{shape}, expected {self.raw_shape}")
        if value.dtype.kind not in self.kinds:
            raise BadValueError(f"has the dtype {value.dtype}, expected {self._expected_dtype()}")
        if self.low is None or self.high is None:
            return Taken(self.prepare(value))
        inside = (value >= self.low) & (value <= self.high)
        if inside.all():
            return Taken(self.prepare(value))
        if not (np.abs(value) <= LARGEST).all():
            raise BadValueError(f"is not finite: {brief(value)}")
        if self.declared is None:
            raise BadValueError(f"is outside of its space: {brief(value)}")
        place = np.unravel_index(int(np.argmin(inside)), inside.shape)  # of one number that leaves its bounds
        which = f"number {', '.join(map(str, place))} is " if place else ""
        low, high = float(self.declared.low[place]), float(self.declared.high[place])
        return Taken(self.prepare(value), f"{which}{float(value[place]):.6g}, declared are {low:.6g} to {high:.6g}")

    def _expected_dtype(self) -> str:
        return {"f": "numbers", "u": "uint8"}.get(self.kinds[0], "integers")


def observation_leaves(space: gymnasium.Space, config: EnvConfig) -> list[Observation]:
    """The leaves of an observation space, in the order of `flat_values`.

    Args:
        space: of one environment, as `chosen` leaves it.
        config: how images are made small, and the environment's id, for errors.

    Raises:
        UnsupportedSpaceError: a leaf cannot be seen, or two have one name; the message names them.
    """
    leaves, label = [], config.id
    for path, part in _flat_spaces(space):
        try:
            leaf = _observation(path, part, config.image)
        except UnclearLayoutError as error:
            raise UnsupportedSpaceError(
                f"{label}: the observation '{path or ALONE_IMAGE}' is {brief(part)}, and {error}."
            ) from None
        if leaf is None:
            name = path or ALONE
            leave_out = f" --env.obs-ignore '{path}' leaves it out." if path else ""
            raise UnsupportedSpaceError(
                f"{label}: the observation '{name}' is {brief(part)}, which is not supported.{leave_out}\n"
                f"{OBSERVATIONS}"
            )
        # A name that files and checkpoints can hold.
        name = leaf.spec.name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        leaves.append(leaf._replace(spec=leaf.spec._replace(name=name)))
    if not leaves:
        raise UnsupportedSpaceError(f"{label}: the observation is an empty {type(space).__name__}.\n{OBSERVATIONS}")
    names = collections.Counter(leaf.spec.name for leaf in leaves)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UnsupportedSpaceError(
            f"{label}: {names[twice[0]]} parts of the observation have the name '{twice[0]}', expected one of each "
            "name.\nRename one: gymnasium.wrappers.TransformObservation, or a wrapper of your own."
        )
    return leaves


class _Ignored(gymnasium.Space):
    """A part of a tuple that the agent does not see; its place remains."""


def chosen(space: gymnasium.Space, config: EnvConfig) -> gymnasium.Space:
    """An observation space without the leaves that `env.obs_keys` does not name, or `env.obs_ignore` does.

    Raises:
        UnsupportedSpaceError: a name or a pattern fits no leaf, or no leaf is left.
    """
    keys, ignored = (
        [one.strip() for one in text.split(",") if one.strip()] for text in (config.obs_keys, config.obs_ignore)
    )
    if not keys and not ignored:
        return space
    names = [path or ALONE for path, _ in _flat_spaces(space)]
    there = ", ".join(names)
    for setting, patterns in (("obs_keys", keys), ("obs_ignore", ignored)):
        for pattern in patterns:
            if not any(_fits(name, [pattern]) for name in names):
                meant = difflib.get_close_matches(pattern, names, n=1)
                advice = f" Did you mean `{meant[0]}`?" if meant else ""
                raise UnsupportedSpaceError(
                    f"{config.id}: env.{setting} names `{pattern}`, and the observations are: {there}.{advice}"
                )

    def is_seen(name: str) -> bool:
        return (not keys or _fits(name, keys)) and not _fits(name, ignored)

    if not any(map(is_seen, names)):
        raise UnsupportedSpaceError(
            f"{config.id}: env.obs_keys and env.obs_ignore leave no observation, of: {there}. Name one that is seen."
        )
    return _pruned(space, is_seen, "")


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _pruned(space: gymnasium.Space, is_seen: Callable[[str], bool], path: str) -> gymnasium.Space:
    if isinstance(space, Dict):
        parts = {key: _pruned(part, is_seen, joined(path, key)) for key, part in space.items()}
        kept = {key: part for key, part in parts.items() if not isinstance(part, _Ignored)}
        return Dict(kept) if kept else _Ignored()
    if isinstance(space, Tuple):
        parts = [_pruned(part, is_seen, joined(path, at)) for at, part in enumerate(space.spaces)]
        return _Ignored() if all(isinstance(part, _Ignored) for part in parts) else Tuple(parts)
    return space if is_seen(path or ALONE) else _Ignored()


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
    elif not isinstance(space, _Ignored):
        yield value


def _flat_spaces(space: gymnasium.Space, path: str = "") -> Iterator[tuple[str, gymnasium.Space]]:
    if isinstance(space, (Dict, Tuple)):
        parts = space.items() if isinstance(space, Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _flat_spaces(part, joined(path, key))
    elif not isinstance(space, _Ignored):
        yield path, space


def _observation(path: str, space: gymnasium.Space, image: ImageConfig) -> Observation | None:
    if isinstance(space, (Discrete, MultiDiscrete, MultiBinary)):
        return _integers(path or ALONE, space)
    if not isinstance(space, Box) or not space.low.size or space.dtype.kind not in "iufb":
        return None
    if isinstance(space, PictureBox):
        return _image(path or ALONE_IMAGE, Picture(space.shape, 0), image)
    if space.dtype.kind in "iub":
        low, high = (bound.astype(np.float64) for bound in (space.low, space.high))
        if (few := (high - low).max() < MOST_VALUES) and (seen := _box_classes(path or ALONE, space)) is not None:
            return seen
        picture = picture_of(space.shape, image.layout) if space.dtype == np.uint8 and not few else None
        if picture is not None:
            return _image(path or ALONE_IMAGE, picture, image)
    return _vector(path or ALONE, space)


def _image(name: str, picture: Picture, image: ImageConfig) -> Observation:
    shrink = Shrink(image, picture.seen, f"the observation '{name}'")
    given, seen = _times(picture.shape), _times(shrink.shape)
    how = [f"a picture of {given}", str(picture), "" if seen == given else f"seen as {seen}"]
    told = ", ".join(filter(None, how))

    def prepare(value: np.ndarray) -> np.ndarray:
        return shrink(picture.channels_last(value))

    return Observation(ObsSpec(name, shrink.shape), told, picture.shape, "u", prepare)


def _vector(name: str, space: Box) -> Observation:
    size = space.low.size
    told = f"a vector of {size:,} number{'s' * (size > 1)}"
    if len(space.shape) > 1:
        told += f" ({_times(space.shape)})"
    if space.dtype.kind == "f" and len(space.shape) == 3 and sorted(space.shape)[1] >= SMALLEST:
        told += "; as uint8 (0 to 255), it would be seen as a picture"
    return Observation(ObsSpec(name, (size,)), told, space.shape, "fiub", _as_float32, *_bounds(space), space)


def _box_classes(name: str, space: Box) -> Observation | None:
    """A box of few integers as classes; None if its cells are too many for that."""
    low = space.low.astype(np.int64)
    return _classes(name, space.shape, low, space.high.astype(np.int64) - low + 1)


def _integers(name: str, space: gymnasium.Space) -> Observation | None:
    shape = tuple(space.shape or ())
    if isinstance(space, Discrete):
        counts = np.asarray(space.n)
    else:
        counts = np.asarray(space.nvec) if isinstance(space, MultiDiscrete) else np.full(shape, 2)
    return _classes(name, shape, np.broadcast_to(np.asarray(getattr(space, "start", 0)), shape), counts)


def _classes(name: str, shape: tuple[int, ...], low: np.ndarray, counts: np.ndarray) -> Observation | None:
    """Integers from `low` on, so many of each number; None if there are too many, or none."""
    if not counts.size or not 0 < (classes := int(counts.max())) * math.prod(shape) <= MOST_CLASSES:
        return None
    spec = ObsSpec(name, shape, classes)
    of = f"{classes} class{'es' * (classes > 1)}"
    what = "an integer" if not shape else f"{shape[0]} integers" if len(shape) == 1 else f"a {_times(shape)} board"
    low, high = np.asarray(low), np.asarray(low + counts - 1)
    return Observation(spec, f"{what}, {of}", shape, "iub", lambda value: (value - low).astype(spec.dtype), low, high)


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _as_float32(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32).reshape(-1)


def _bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """What a value must keep, with some leeway for rounding."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        leeway = LEEWAY * np.where(np.isfinite(high - low), high - low, 1 + np.minimum(np.abs(low), np.abs(high)))
        # Bounds of float32 that are far off, next to each other or the same, are rounded by more than that.
        below, above = (np.maximum(leeway, ROUNDING * np.abs(bound)) for bound in (low, high))
        return np.maximum(low - below, -LARGEST), np.minimum(high + above, LARGEST)
