"""Converts Gymnasium's observation spaces to `ObsSpec`s, and checks and converts their values.

observation space                               the agent's observation
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
MOST_CLASSES = 65_536  # one-hot numbers of an observation of integers: more would make too large a network
MOST_VALUES = 32  # of one number of a Box of integers that is converted to classes
LARGEST = float(np.finfo(np.float32).max)
LEEWAY = 1e-4  # tolerance for floats outside their bounds, for rounding, as a share of the bounds' distance
ROUNDING = 1e-6  # the least tolerance, as a share of the bound itself

OBSERVATIONS = (
    "Supported: Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these. A wrapper of "
    "gymnasium.wrappers may convert it."
)


class BadValueError(ValueError):
    """An observation does not fit its space, or a reward is not a number; the message describes the problem."""


class Converted(NamedTuple):
    """One value after conversion."""

    value: np.ndarray  # as stored
    outside: str = ""  # how the value exceeds its declared bounds; empty if it does not


class Observation(NamedTuple):
    """One leaf of an observation space."""

    spec: ObsSpec
    description: str  # for messages
    raw_shape: tuple[int, ...]  # of the environment's value
    kinds: str  # numpy's letters of the accepted dtypes
    prepare: Callable[[np.ndarray], np.ndarray]  # one raw value, checked -> the stored value
    low: np.ndarray | None = None  # bounds in the raw shape, within those of float32; None: any value is valid
    high: np.ndarray | None = None
    declared: Box | None = None  # the space, if finite values outside its bounds are accepted; None: they are errors

    def convert(self, value: Any) -> Converted:
        """Checks and converts one value of the environment.

        Gymnasium does not enforce declared bounds: a finite number outside them is accepted and reported.

        Raises:
            BadValueError: the value has another shape or dtype, is not finite, or is an integer outside its classes.
        """
        given, value = value, np.asarray(value)
        if value.shape != self.raw_shape:
            shape = "is None" if given is None else f"has shape {value.shape}"
            raise BadValueError(f"{shape}, expected {self.raw_shape}")
        if value.dtype.kind not in self.kinds:
            raise BadValueError(f"has dtype {value.dtype}, expected {self._expected_dtype()}")
        if self.low is None or self.high is None:
            return Converted(self.prepare(value))
        inside = (value >= self.low) & (value <= self.high)
        if inside.all():
            return Converted(self.prepare(value))
        if not (np.abs(value) <= LARGEST).all():
            raise BadValueError(f"is not finite: {brief(value)}")
        if self.declared is None:
            raise BadValueError(f"is outside its space: {brief(value)}")
        index = np.unravel_index(int(np.argmin(inside)), inside.shape)  # of one number outside its bounds
        which = f"number {', '.join(map(str, index))} is " if index else ""
        low, high = float(self.declared.low[index]), float(self.declared.high[index])
        return Converted(self.prepare(value), f"{which}{float(value[index]):.6g}, declared {low:.6g} to {high:.6g}")

    def _expected_dtype(self) -> str:
        return {"f": "numbers", "u": "uint8"}.get(self.kinds[0], "integers")


def observation_leaves(space: gymnasium.Space, config: EnvConfig) -> list[Observation]:
    """The leaves of an observation space, in the order of `flat_values`.

    Args:
        space: of one environment, as returned by `select_keys`.
        config: how images are resized, and the environment's id, for errors.

    Raises:
        UnsupportedSpaceError: a leaf is not supported, or two have the same name; the message names them.
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
            leave_out = f" --env.obs-ignore '{path}' excludes it." if path else ""
            raise UnsupportedSpaceError(
                f"{label}: the observation '{name}' is {brief(part)}, which is not supported.{leave_out}\n"
                f"{OBSERVATIONS}"
            )
        # Make the name valid in files and checkpoints.
        name = leaf.spec.name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        leaves.append(leaf._replace(spec=leaf.spec._replace(name=name)))
    if not leaves:
        raise UnsupportedSpaceError(f"{label}: the observation is an empty {type(space).__name__}.\n{OBSERVATIONS}")
    names = collections.Counter(leaf.spec.name for leaf in leaves)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UnsupportedSpaceError(
            f"{label}: {names[twice[0]]} parts of the observation have the name '{twice[0]}', expected unique names.\n"
            "Rename one with gymnasium.wrappers.TransformObservation or your own wrapper."
        )
    return leaves


class _Ignored(gymnasium.Space):
    """Placeholder for an excluded part of a tuple."""


def select_keys(space: gymnasium.Space, config: EnvConfig) -> gymnasium.Space:
    """An observation space with only the leaves selected by `env.obs_keys` and `env.obs_ignore`.

    Raises:
        UnsupportedSpaceError: a name or a pattern matches no leaf, or no leaf is left.
    """
    keys, ignored = (
        [one.strip() for one in text.split(",") if one.strip()] for text in (config.obs_keys, config.obs_ignore)
    )
    if not keys and not ignored:
        return space
    names = [path or ALONE for path, _ in _flat_spaces(space)]
    available = ", ".join(names)
    for setting, patterns in (("obs_keys", keys), ("obs_ignore", ignored)):
        for pattern in patterns:
            if not any(_fits(name, [pattern]) for name in names):
                meant = difflib.get_close_matches(pattern, names, n=1)
                advice = f" Did you mean `{meant[0]}`?" if meant else ""
                raise UnsupportedSpaceError(
                    f"{config.id}: env.{setting} is `{pattern}`, expected some of: {available}.{advice}"
                )

    def is_seen(name: str) -> bool:
        return (not keys or _fits(name, keys)) and not _fits(name, ignored)

    if not any(map(is_seen, names)):
        raise UnsupportedSpaceError(
            f"{config.id}: env.obs_keys and env.obs_ignore leave no observation, expected at least one of: {available}."
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
        BadValueError: the value is not a dictionary with the keys of the space, or not a tuple of its length.
    """
    if isinstance(space, Dict):
        if not isinstance(value, dict) or not value.keys() >= set(space.keys()):
            found = f"has the keys {list(value)}" if isinstance(value, dict) else f"is {type(value).__name__}"
            raise BadValueError(f"{found}, expected a dictionary with {list(space.keys())}")
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
    parts = [f"a picture of {given}", str(picture), "" if seen == given else f"converted to {seen}"]
    description = ", ".join(filter(None, parts))

    def prepare(value: np.ndarray) -> np.ndarray:
        return shrink(picture.channels_last(value))

    return Observation(ObsSpec(name, shrink.shape), description, picture.shape, "u", prepare)


def _vector(name: str, space: Box) -> Observation:
    size = space.low.size
    description = f"a vector of {size:,} number{'s' * (size > 1)}"
    if len(space.shape) > 1:
        description += f" ({_times(space.shape)})"
    if space.dtype.kind == "f" and len(space.shape) == 3 and sorted(space.shape)[1] >= SMALLEST:
        description += "; as uint8 (0 to 255), it would be a picture"
    return Observation(ObsSpec(name, (size,)), description, space.shape, "fiub", _as_float32, *_bounds(space), space)


def _box_classes(name: str, space: Box) -> Observation | None:
    """A Box of integers with few values as classes; None if that makes too many one-hot numbers."""
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
    """Integers as classes, `counts` values from `low` on for each number; None if there are none or too many."""
    if not counts.size or not 0 < (classes := int(counts.max())) * math.prod(shape) <= MOST_CLASSES:
        return None
    spec = ObsSpec(name, shape, classes)
    of = f"{classes} class{'es' * (classes > 1)}"
    kind = "an integer" if not shape else f"{shape[0]} integers" if len(shape) == 1 else f"a {_times(shape)} board"
    low, high = np.asarray(low), np.asarray(low + counts - 1)
    return Observation(spec, f"{kind}, {of}", shape, "iub", lambda value: (value - low).astype(spec.dtype), low, high)


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _as_float32(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32).reshape(-1)


def _bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """The space's bounds, with a tolerance for rounding."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        leeway = LEEWAY * np.where(np.isfinite(high - low), high - low, 1 + np.minimum(np.abs(low), np.abs(high)))
        # Large float32 bounds close to each other have a rounding error above `leeway`.
        below, above = (np.maximum(leeway, ROUNDING * np.abs(bound)) for bound in (low, high))
        return np.maximum(low - below, -LARGEST), np.minimum(high + above, LARGEST)
