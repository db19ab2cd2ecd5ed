"""Reads pygame's pictures as one block of memory.

Gymnasium copies a pygame surface element by element, not in memory order. This takes half of CartPole's rendering
time. This wrapper copies the surface as one block and rearranges it into rows, columns and colours as a view.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

_ONE_AT_A_TIME = threading.Lock()


class BlockFrames(gymnasium.Wrapper):
    """Renders exactly the same pictures as the environment."""

    def render(self) -> Any:
        """The wrapped environment's picture, [height, width, 3] uint8."""
        with _reading_blocks():
            return self.env.render()


@contextlib.contextmanager
def _reading_blocks() -> Iterator[None]:
    """Within the context, pygame's `pixels3d` returns copies, because `render` only reads from it."""
    import pygame

    with _ONE_AT_A_TIME:
        usual = pygame.surfarray.pixels3d
        pygame.surfarray.pixels3d = lambda surface: _Block(surface) if _is_plain(surface) else usual(surface)
        try:
            yield
        finally:
            pygame.surfarray.pixels3d = usual


def _is_plain(surface: Any) -> bool:
    """Whether a pixel is four bytes in the order blue, green, red."""
    return surface.get_bytesize() == 4 and surface.get_shifts()[:3] == (16, 8, 0)


class _Block:
    """Converts to a numpy array [width, height, 3] without another copy."""

    def __init__(self, surface: Any) -> None:
        width, height = surface.get_size()
        rows = np.frombuffer(surface.get_buffer().raw, np.uint8).reshape(height, surface.get_pitch())
        self._pixels = rows[:, : 4 * width].reshape(height, width, 4)[..., 2::-1].transpose(1, 0, 2)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._pixels if dtype in (None, np.uint8) else self._pixels.astype(dtype)
