"""Recognises pictures among boxes of integers, and the layout of their axes, by shape.

shape                          recognised as
84 x 84, 64 x 64 x 3           a picture, channels last
3 x 64 x 64                    a picture, channels first: they are moved to the end
4 x 84 x 84                    four grey frames: each is a channel
4 x 84 x 84 x 3                four frames in colour: twelve channels
6 x 7, 7 x 7 x 3               not a picture: too small
64 x 64 x 64                   ambiguous: needs `env.image.layout`
"""

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Box

SMALLEST = 16  # least height and width of a picture in pixels
MOST_CHANNELS = 64  # on an axis next to two equal ones

Layout = Literal["auto", "channels_last", "channels_first"]


class PictureBox(Box):
    """A space of pictures [height, width, channels] uint8, of any size."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Takes [height, width, channels]."""
        super().__init__(0, 255, shape, np.uint8)

    def __reduce__(self) -> Any:
        return PictureBox, (self.shape,)


class UnclearLayoutError(ValueError):
    """The shape does not determine which axes are height and width."""


class Picture(NamedTuple):
    """The layout of a picture's axes."""

    shape: tuple[int, ...]  # of the environment's value
    height_axis: int  # the width follows

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[self.height_axis], self.shape[self.height_axis + 1]

    @property
    def seen(self) -> tuple[int, ...]:
        """The shape with channels last: [height, width] or [height, width, channels]."""
        others = self._others
        return self.size if not others else (*self.size, int(np.prod([self.shape[axis] for axis in others])))

    def channels_last(self, value: np.ndarray) -> np.ndarray:
        """Converts an environment's picture to the shape `seen`."""
        if len(self.shape) <= 3 and self.height_axis == 0:
            return value
        order = (self.height_axis, self.height_axis + 1, *self._others)
        return value.transpose(order).reshape(self.seen)

    def __str__(self) -> str:
        """The recognised layout, for messages; empty for a single frame with channels last."""
        height, width = self.size
        if len(self.shape) == 4:
            return f"{self.shape[0]} frames of {height}x{width}, stacked as channels"
        if self.height_axis == 0:
            return ""
        channels = self.shape[0]
        return f"channels first: {channels} {'frames or ' if channels not in (1, 3) else ''}channels, moved to the end"

    @property
    def _others(self) -> list[int]:
        """The axes that become channels: frames, then the channels of each."""
        return [axis for axis in range(len(self.shape)) if axis not in (self.height_axis, self.height_axis + 1)]


def picture_of(shape: tuple[int, ...], layout: Layout) -> Picture | None:
    """The layout of a picture of this shape; None if it is too small or does not have two to four axes.

    Raises:
        UnclearLayoutError: the shape is ambiguous, and `layout` is "auto".
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
        "its shape does not determine which axes are height and width: set --env.image.layout channels_last or "
        "channels_first"
    )
