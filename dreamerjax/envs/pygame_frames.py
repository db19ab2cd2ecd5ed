"""Pictures that pygame drew, read as one block of memory.

Gymnasium reads a pygame surface number by number, in another order than it lies in memory. That takes half
of the time in which CartPole draws itself. A block is copied at once, and turned into rows, columns and colours without
moving anything.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

_ONE_AT_A_TIME = threading.Lock()


class BlockFrames(gymnasium.Wrapper):
    """Renders what the environment renders, to the number."""

    def render(self) -> Any:
        """As the environment's, [height, width, 3] uint8."""
        with _reading_blocks():
            return self.env.render()


@contextlib.contextmanager
def _reading_blocks() -> Iterator[None]:
    """While it lasts, pygame's `pixels3d` gives copies: what an environment draws is only read then."""
    import pygame

    with _ONE_AT_A_TIME:
        usual = pygame.surfarray.pixels3d
        pygame.surfarray.pixels3d = lambda surface: _Block(surface) if _is_plain(surface) else usual(surface)
        try:
            yield
        finally:
            pygame.surfarray.pixels3d = usual


def _is_plain(surface: Any) -> bool:
    """Whether each pixel is four bytes, blue first."""
    return surface.get_bytesize() == 4 and surface.get_shifts()[:3] == (16, 8, 0)


class _Block:
    """What numpy takes for an array [width, height, 3]; it is not copied once more."""

    def __init__(self, surface: Any) -> None:
        width, height = surface.get_size()
        rows = np.frombuffer(surface.get_buffer().raw, np.uint8).reshape(height, surface.get_pitch())
        self._pixels = rows[:, : 4 * width].reshape(height, width, 4)[..., 2::-1].transpose(1, 0, 2)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._pixels if dtype in (None, np.uint8) else self._pixels.astype(dtype)
