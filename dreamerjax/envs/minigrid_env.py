"""MiniGrid, `minigrid:ID` such as minigrid:MiniGrid-DoorKey-6x6-v0: the symbols around the agent, or how it looks."""

from typing import Any

import gymnasium
import minigrid  # noqa: F401  # registers the environments  # pyright: ignore[reportMissingImports]
import numpy as np
from gymnasium.spaces import Dict, Discrete, MultiDiscrete
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX  # pyright: ignore[reportMissingImports]

from dreamerjax.config import EnvConfig
from dreamerjax.envs.names import closest_of, unknown
from dreamerjax.envs.pixels import KEY

DIRECTIONS = 4
SYMBOLS = max(len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX), DIRECTIONS)
TILE = 8  # pixels of a cell, in the picture before it is resized


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The environment of an ID; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is none of that name.
    """
    if name not in _ids():
        raise unknown("minigrid", name, closest(name))
    env = gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True)
    return Seen(env, symbols=config.obs != "pixels", picture=config.obs in ("pixels", "both"))


def closest(name: str) -> str | None:
    """The ID that was probably meant, or None."""
    return closest_of(name, _ids())


class Seen(gymnasium.Wrapper):
    """The cells that the agent sees, as integers or as a picture, and its direction; the text of the mission is not.

    Cells are [width, height, (object, colour, state)]. A metric tells whether an episode came to its goal.
    """

    def __init__(self, env: gymnasium.Env, *, symbols: bool, picture: bool) -> None:
        """Chooses what is seen of the cells, or both."""
        super().__init__(env)
        self._symbols, self._picture = symbols, picture
        self._grid: Any = env.unwrapped
        size = self._grid.agent_view_size
        spaces: dict[str, gymnasium.Space] = {"direction": Discrete(DIRECTIONS)}
        if symbols:
            spaces["cells"] = MultiDiscrete(np.full((size, size, 3), SYMBOLS))
        if picture:
            spaces[KEY] = gymnasium.spaces.Box(0, 255, (size * TILE, size * TILE, 3), np.uint8)
        self.observation_space = Dict(spaces)

    def reset(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the environment's."""
        obs, info = self.env.reset(**options)
        return self._seen(obs), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            info = {**info, "metrics": {"success": float(float(reward) > 0)}}
        return self._seen(obs), reward, terminated, truncated, info

    def _seen(self, obs: dict[str, Any]) -> dict[str, Any]:
        seen = {"direction": obs["direction"]}
        if self._symbols:
            seen["cells"] = obs["image"]
        if self._picture:
            seen[KEY] = self._grid.get_frame(tile_size=TILE, agent_pov=True)
        return seen


def _ids() -> list[str]:
    return [name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-"))]
