"""Crafter, `crafter:reward` and `crafter:noreward`: one open world, 22 achievements, seen in pixels."""

import collections
import math
from collections.abc import Iterable
from typing import Any

import crafter  # pyright: ignore[reportMissingImports]
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs.names import closest_of, refuse_obs, unknown
from dreamerjax.envs.pixels import KEY

TASKS = ("reward", "noreward")
FILM = (288, 288)  # pixels of what `render` shows


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The world, with its rewards or without; see `Suite`.

    Raises:
        UnknownEnvironmentError: it is neither of the two.
        EnvError: a state is asked for; there are only pixels.
    """
    if name not in TASKS:
        raise unknown("crafter", name, closest(name))
    refuse_obs(config, "state", "both", reason="the world is only seen in pixels")
    return CrafterEnv(reward=name == "reward", size=(config.image.width, config.image.height))


def closest(name: str) -> str | None:
    """The task that was probably meant, or None."""
    return closest_of(name, TASKS)


def crafter_score(success_rates: Iterable[float]) -> float:
    """The published score, in percent: the geometric mean of the achievements' success rates, each raised by 1 %.

    Args:
        success_rates: of all achievements, each the share of episodes in which it was unlocked, 0 ... 1.
    """
    logarithms = [math.log(1 + 100 * rate) for rate in success_rates]
    return math.exp(sum(logarithms) / len(logarithms)) - 1


class CrafterEnv(gymnasium.Env):
    """The world. At an episode's end it tells what was unlocked, and the score over the episodes of this copy."""

    render_mode = "rgb_array"

    def __init__(self, *, reward: bool, size: tuple[int, int]) -> None:
        """Prepares the world.

        Args:
            reward: whether achievements and health are rewarded.
            size: of the picture, width and height.
        """
        self._options = {"reward": reward, "size": size}
        self._world = self._made(seed=0)
        self._unlocked: collections.Counter[str] = collections.Counter()  # episodes with each achievement
        self._episodes = 0
        self.observation_space = Dict({KEY: Box(0, 255, (size[1], size[0], 3), np.uint8)})
        self.action_space = Discrete(len(self._world.action_names))

    @property
    def action_names(self) -> list[str]:
        """What the player can do."""
        return self._world.action_names

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Makes a new world; a seed starts a whole sequence of them."""
        super().reset(seed=seed)
        if seed is not None:
            self._world = self._made(seed)
        return {KEY: self._world.reset()}, {}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One step; an episode ends with death, or after 10,000 of them."""
        picture, reward, over, told = self._world.step(action)
        terminated = told["discount"] == 0
        info = {"metrics": self._metrics(told["achievements"])} if over else {}
        return {KEY: picture}, float(reward), terminated, bool(over) and not terminated, info

    def render(self) -> np.ndarray:
        """The world around the player, in a size to look at."""
        return self._world.render(FILM)

    def _made(self, seed: int) -> Any:
        env = crafter.Env(**self._options, seed=seed)
        vars(env)["_world"].__class__ = _OrderedWorld
        return env

    def _metrics(self, achievements: dict[str, int]) -> dict[str, float]:
        unlocked = {name: float(count > 0) for name, count in achievements.items()}
        self._unlocked.update({name: int(value) for name, value in unlocked.items()})
        self._episodes += 1
        score = crafter_score(self._unlocked[name] / self._episodes for name in unlocked)
        return {"crafter_score": score, **{f"achievement_{name}": value for name, value in unlocked.items()}}


class _OrderedWorld(crafter.engine.World):
    """Keeps creatures in the order in which they came, so that the same seed is the same world: sets do not."""

    def reset(self, seed: int | None = None) -> None:
        super().reset(seed)
        self._chunks = collections.defaultdict(_OrderedSet)


class _OrderedSet(dict):
    def add(self, member: Any) -> None:
        self[member] = None

    def remove(self, member: Any) -> None:
        del self[member]
