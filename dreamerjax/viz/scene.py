"""Pictures of what was only dreamed: an image as it was decoded, a state as the environment would draw it."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, VectorEnv, make_env
from dreamerjax.types import Spaces


class Scene:
    """Draws observations, dreamed or real."""

    def __init__(self, config: EnvConfig, spaces: Spaces) -> None:
        """Of an environment; one that is not installed, or cannot be put into a state and drawn, draws images only."""
        self._image = next((spec.name for spec in spaces.obs if spec.is_image), None)
        self._vector = next((spec.name for spec in spaces.obs if spec.is_vector), None)
        self._env = None
        if self._image is None and self._vector is not None:
            with contextlib.suppress(EnvError):
                env = make_env(dataclasses.replace(config, obs="auto", workers=0), num_envs=1, seed=0)
                if _can_draw(env, self._vector):
                    self._env = env
                else:
                    env.close()

    @property
    def draws(self) -> bool:
        """Whether there is anything to see."""
        return self._image is not None or self._env is not None

    def draw(self, obs: Mapping[str, Any]) -> np.ndarray | None:
        """A picture of one observation (name -> [...], no batch), [height, width, channels] uint8; None: no picture.

        Raises:
            RenderError: the environment, which could draw its first state, cannot draw this one.
        """
        if self._image is not None:
            return np.asarray(obs[self._image])
        if self._env is None or self._vector is None:
            return None
        self._env.place(np.asarray(obs[self._vector]))
        return self._env.render()

    def close(self) -> None:
        """Frees the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None


def _can_draw(env: VectorEnv, vector: str) -> bool:
    """Whether an environment that was just made can be put where it shows this vector, and drawn there."""
    try:
        seen = env.reset().obs.get(vector)
        return seen is not None and env.place(seen[0]) and env.render() is not None
    except Exception:  # its own code may raise anything
        return False
