"""Windows: consecutive steps of one environment, as integers.

Steps are counted from the first one that was added, so the window that starts at step `first` consists of the steps
`first`, `first + 1`, ... A window may cross the end of an episode (`is_first` marks it for the model), but not the
ring's write head, because the newest and the oldest row are not consecutive.
"""

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """Where windows are; both arrays have the same shape."""

    first: np.ndarray  # step of the first row
    env: np.ndarray  # index of the environment


def draw_windows(
    generator: np.random.Generator, shape: tuple[int, ...], *, oldest: int, steps: int, length: int, num_envs: int
) -> Windows:
    """Draws windows uniformly and independently over all (first step, environment).

    Args:
        generator: of random numbers.
        shape: of the arrays to return.
        oldest: the first step that a window may hold.
        steps: how many steps there are from `oldest` on.
        length: T, steps in a window.
        num_envs: environments that are stepped together.
    """
    start = generator.integers((steps - length + 1) * num_envs, size=shape)
    return Windows(oldest + start // num_envs, start % num_envs)


def steps_of(windows: Windows, length: int) -> np.ndarray:
    """All steps of the windows: [..., 1, B] -> [..., T, B], and [B] -> [T, B]."""
    return windows.first + np.arange(length)[:, None]
