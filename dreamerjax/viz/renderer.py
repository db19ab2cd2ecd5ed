"""Renders observations, dreamed or real: images as they are, states as the environment draws them."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, VectorEnv, make_env
from dreamerjax.types import Spaces


class ObservationRenderer:
    """Turns observations, dreamed or real, into images."""

    def __init__(self, config: EnvConfig, spaces: Spaces) -> None:
        """Creates an environment if states must be rendered; if that fails, only image observations can be drawn."""
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
    def can_draw(self) -> bool:
        """Whether `draw` returns images."""
        return self._image is not None or self._env is not None

    def draw(self, obs: Mapping[str, Any]) -> np.ndarray | None:
        """One observation (name -> [...], no batch) as an image [height, width, channels] uint8; None without one.

        Raises:
            RenderError: the environment cannot draw this state.
        """
        if self._image is not None:
            return np.asarray(obs[self._image])
        if self._env is None or self._vector is None:
            return None
        self._env.place(np.asarray(obs[self._vector]))
        return self._env.render()

    def close(self) -> None:
        """Closes the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None


def _can_draw(env: VectorEnv, vector: str) -> bool:
    """Whether the environment can be set to the state of this vector and rendered; tried with its first state."""
    try:
        seen = env.reset().obs.get(vector)
        return seen is not None and env.place(seen[0]) and env.render() is not None
    except Exception:  # the environment's code may raise anything
        return False
