"""Converts the return value of `render` to one picture [height, width, 3] uint8.

    rendered                                              the picture
    array [height, width], or with 1 channel              grey
    2 or 4 channels                                       without the last channel, alpha
    [channels, height, width]                             channels last
    array [T, height, width, channels], list of pictures  the newest one
    PIL.Image, nested lists, anything numpy reads         as an array
    bool; integers 0 ... 255; floats 0 ... 1 or 0 ... 255 0 ... 255

Floats are taken as 0 ... 1 if none is larger than 1.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from dreamerjax.envs import RenderError, with_install_line

PICTURE_MODES = ("rgb_array", "rgb_array_list")  # Gymnasium's render modes that return pictures
CHANNELS = (1, 2, 3, 4)
LEEWAY = 1e-3  # tolerance for floats outside 0 ... 1, for rounding
EXPECTED = "expected a picture, such as an array [height, width, 3] of uint8"


class FrameError(ValueError):
    """A value cannot be converted to a picture; the message describes the value."""


def as_frame(rendered: Any) -> np.ndarray:
    """A return value of `render` as a picture [height, width, 3] uint8; always a copy.

    Raises:
        FrameError: the value is not a picture.
    """
    picture = as_picture(rendered)
    return picture.repeat(3, -1) if picture.shape[-1] == 1 else np.array(picture, order="C")


def as_picture(rendered: Any) -> np.ndarray:
    """As `as_frame`, but grey pictures keep one channel: [height, width, 1 or 3] uint8; may share memory.

    Raises:
        FrameError: the value is not a picture.
    """
    array = _array(_newest(rendered))
    if array.ndim == 4 and len(array):
        array = array[-1]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in CHANNELS or not array.size:
        raise FrameError(f"returned {_described(rendered)}, {EXPECTED}")
    return _bytes(array[..., : 1 if array.shape[-1] < 3 else 3])


def render_frame(draw: Callable[[], Any], label: str, *, make: Callable[[Any], np.ndarray] = as_frame) -> np.ndarray:
    """Renders an environment.

    Args:
        draw: its `render`.
        label: of the environment, for errors.
        make: `as_frame` or `as_picture`.

    Raises:
        RenderError: `draw` raises, or does not return a picture.
    """
    try:
        return make(draw())
    except FrameError as error:
        raise RenderError(f"{label}: `render` {error}.") from error
    except (Exception, SystemExit) as error:  # the code is the user's: it may raise anything
        message = f"{label}: `render` raised {type(error).__name__}: {error}"
        raise RenderError(with_install_line(message, error)) from error


def same_size(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames [height, width, 3] uint8, all of the size of the first: others are resized and padded with black."""
    shape = None
    for frame in frames:
        shape = shape or frame.shape
        yield frame if frame.shape == shape else _fitted(frame, *shape[:2])


def _fitted(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = min(height / frame.shape[0], width / frame.shape[1])
    rows, columns = (max(1, round(scale * size)) for size in frame.shape[:2])
    resized = Image.fromarray(np.ascontiguousarray(frame)).resize((columns, rows), Image.Resampling.BOX)
    top, left = (height - rows) // 2, (width - columns) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[top : top + rows, left : left + columns] = np.asarray(resized)
    return fitted


def _newest(rendered: Any) -> Any:
    """The last of a list of pictures; any other value unchanged."""
    if isinstance(rendered, (list, tuple, deque)) and len(rendered):
        last = rendered[-1]
        shape = getattr(last, "shape", ())
        # Arrays of two axes may be the rows of one picture, [width, channels] each.
        if isinstance(last, Image.Image) or len(shape) > 2 or (len(shape) == 2 and shape[-1] not in CHANNELS):
            return last
    return rendered


def _array(picture: Any) -> np.ndarray:
    if isinstance(picture, Image.Image) and picture.mode[0] not in "IF":  # these modes hold plain numbers
        picture = picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
    try:
        return np.asarray(list(picture) if isinstance(picture, deque) else picture)
    except Exception as error:
        raise FrameError(f"returned {_described(picture)}, which numpy cannot read ({error}), {EXPECTED}") from error


def _bytes(array: np.ndarray) -> np.ndarray:
    """Scales an array to 0 ... 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array * np.uint8(255)
    if array.dtype.kind not in "uifOV":  # V is bfloat16, among others
        raise FrameError(f"returned a picture of {array.dtype}, expected numbers")
    try:
        floats = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise FrameError(f"returned a picture of {array.dtype}, expected numbers") from error
    low, high = float(floats.min()), float(floats.max())
    unit = array.dtype.kind not in "ui" and high <= 1 + LEEWAY
    most = 1 if unit else 255
    if not (-LEEWAY * most <= low and high <= most * (1 + LEEWAY)):  # also false for NaN
        raise FrameError(f"returned a picture of numbers from {low:g} to {high:g}, expected 0 ... 255 or 0 ... 1")
    return np.clip(np.rint(floats * (255 / most)), 0, 255).astype(np.uint8)


def _described(given: Any) -> str:
    """A short description of a value, for messages."""
    if given is None:
        return "None"
    if isinstance(given, (str, bytes)):
        return "a string" if isinstance(given, str) else "bytes"
    name = type(given).__name__
    if isinstance(given, (list, tuple, deque)):
        return f"a {name} of {len(given)}" if len(given) else f"an empty {name}"
    shape = getattr(given, "shape", None)
    return f"an object of type {name}" if shape is None else f"an array of shape {tuple(shape)}"
