"""Which boxes of integers are pictures, and how their axes stand, by their shape.

shape                          seen as
84 x 84, 64 x 64 x 3           a picture, channels last
3 x 64 x 64                    a picture, channels first: they are moved to the end
4 x 84 x 84                    four grey frames: each is a channel
4 x 84 x 84 x 3                four frames in colour: twelve channels
6 x 7, 7 x 7 x 3               no picture: too small to be one
64 x 64 x 64                   not plain: `env.image.layout` must say
"""

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Box

SMALLEST = 16  # pixels of the height and the width of a picture
MOST_CHANNELS = 64  # on the one axis that differs from two equal ones

Layout = Literal["auto", "channels_last", "channels_first"]


class PictureBox(Box):
    """A space of pictures [height, width, channels], however small they are."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of uint8."""
        super().__init__(0, 255, shape, np.uint8)

    def __reduce__(self) -> Any:
        return PictureBox, (self.shape,)


class UnclearLayoutError(ValueError):
    """The shape does not tell which axes are height and width."""


class Picture(NamedTuple):
    """How the axes of a picture stand."""

    shape: tuple[int, ...]  # as the environment gives it
    height_axis: int  # the width follows

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[self.height_axis], self.shape[self.height_axis + 1]

    @property
    def seen(self) -> tuple[int, ...]:
        """[height, width] or [height, width, channels]."""
        others = self._others
        return self.size if not others else (*self.size, int(np.prod([self.shape[axis] for axis in others])))

    def channels_last(self, value: np.ndarray) -> np.ndarray:
        """A picture of the environment in the shape of `seen`."""
        if len(self.shape) <= 3 and self.height_axis == 0:
            return value
        order = (self.height_axis, self.height_axis + 1, *self._others)
        return value.transpose(order).reshape(self.seen)

    def __str__(self) -> str:
        """What was recognised, where it is more than channels that come last."""
        height, width = self.size
        if len(self.shape) == 4:
            return f"{self.shape[0]} frames of {height}x{width}, side by side as channels"
        if self.height_axis == 0:
            return ""
        channels = self.shape[0]
        return f"channels first: {channels} {'frames or ' if channels not in (1, 3) else ''}channels, moved to the end"

    @property
    def _others(self) -> list[int]:
        """The axes that become channels: frames, then the channels of each."""
        return [axis for axis in range(len(self.shape)) if axis not in (self.height_axis, self.height_axis + 1)]


def picture_of(shape: tuple[int, ...], layout: Layout) -> Picture | None:
    """How a picture of this shape stands; None if it is too small, or of too few or too many axes, to be one.

    Raises:
        UnclearLayoutError: the shape does not tell, and neither does `layout`.
    """
    large = [axis for axis, length in enumerate(shape) if length >= SMALLEST]
    if len(shape) not in (2, 3, 4) or not any(after - axis == 1 for axis, after in itertools.pairwise(large)):
        return None
    if len(shape) == 2:
        return Picture(shape, 0)
    if layout != "auto":
        return Picture(shape, len(shape) - (3 if layout == "channels_last" else 2))
    if len(large) == 2:
        return Picture(shape, large[0])
    square = [axis for axis in range(len(shape) - 1) if shape[axis] == shape[axis + 1]]
    if len(square) == 1:  # the other axes differ from these two
        others = [length for axis, length in enumerate(shape) if axis not in (square[0], square[0] + 1)]
        if max(others) <= min(MOST_CHANNELS, shape[square[0]]):
            return Picture(shape, square[0])
    raise UnclearLayoutError(
        "its shape does not tell which axes are height and width: say --env.image.layout channels_last or "
        "channels_first"
    )
