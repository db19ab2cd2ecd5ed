"""Memory Maze, `memory-maze:SIZE` such as memory-maze:9x9: coloured balls to find repeatedly; pixel observations."""

import logging
import sys
from typing import Any

import gymnasium.envs.registration
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, mujoco_gl
from dreamerjax.envs.names import closest_of, refuse_obs, unknown
from dreamerjax.envs.pixels import KEY

mujoco_gl.choose()

# memory_maze imports Gym to register itself: Gymnasium replaces Gym during the import.
GYM = {f"gym{part}": sys.modules[f"gymnasium{part}"] for part in ("", ".envs", ".envs.registration", ".spaces")}
sys.modules.update(GYM)
try:
    from memory_maze import tasks  # pyright: ignore[reportMissingImports]
finally:
    for alias in GYM:
        del sys.modules[alias]

logging.getLogger("absl").addFilter(lambda record: "Entity with no free joint" not in record.getMessage())  # each reset

TASKS = {
    "9x9": tasks.memory_maze_9x9,
    "11x11": tasks.memory_maze_11x11,
    "13x13": tasks.memory_maze_13x13,
    "15x15": tasks.memory_maze_15x15,
}


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """Makes the maze of a size; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is no maze of that size.
        EnvError: a state is requested, or MuJoCo cannot render.
    """
    if name not in TASKS:
        raise unknown("memory-maze", name, closest(name))
    refuse_obs(config, "state", "both", reason="there are only pixel observations")
    if not mujoco_gl.draws():
        raise EnvError(f"{config.id} needs rendering, but {mujoco_gl.ADVICE}")
    return MazeEnv(name, max(config.image.height, config.image.width))


def closest(name: str) -> str | None:
    """The size closest to a misspelled name, or None."""
    return closest_of(name, TASKS)


class MazeEnv(gymnasium.Env):
    """A new maze in each episode. The border of the image has the colour of the ball to find."""

    render_mode = "rgb_array"

    def __init__(self, name: str, pixels: int) -> None:
        """Makes the maze.

        Args:
            name: its size.
            pixels: height and width of the image.
        """
        self._options = {"image_only_obs": True, "camera_resolution": pixels}
        self._task = TASKS[name]
        self._env: Any = self._task(**self._options, seed=0)
        self._picture = np.zeros((pixels, pixels, 3), np.uint8)
        self.observation_space = Dict({KEY: Box(0, 255, self._picture.shape, np.uint8)})
        self.action_space = Discrete(self._env.action_spec().num_values)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts in a new maze; a seed determines this and all following mazes."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.close()
            self._env = self._task(**self._options, seed=seed)
        self._picture = self._env.reset().observation
        return {KEY: self._picture}, {}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """A quarter of a second of simulation. Episodes end by their time limit only."""
        now = self._env.step(action)
        self._picture = now.observation
        terminated = now.last() and now.discount == 0
        return {KEY: self._picture}, float(now.reward), terminated, now.last() and not terminated, {}

    def render(self) -> np.ndarray:
        """The newest observation."""
        return self._picture

    def close(self) -> None:
        """Frees the simulation."""
        self._env.close()
