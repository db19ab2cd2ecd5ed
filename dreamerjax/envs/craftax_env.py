"""Craftax, `craftax:ID` such as craftax:Craftax-Symbolic-v1: Crafter and its larger successor, stepped in batch."""

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np
from craftax.craftax_env import make_craftax_env_from_name  # pyright: ignore[reportMissingImports]
from gymnasium.spaces import Box, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs.jax_native import Arrival, JaxTask, JaxVectorEnv
from dreamerjax.envs.names import closest_of, refuse_obs, unknown
from dreamerjax.types import Array, PRNGKey

IDS = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")
ACHIEVEMENT = "Achievements/"  # before its name, in percent
NO_LIMIT = 2**30  # steps
BLOCK = 16  # pixels of a block of the world, in what `render` shows


def make_vector(name: str, config: EnvConfig, *, num_envs: int, seed: int) -> JaxVectorEnv:
    """The copies of an ID; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is none of that name.
        EnvError: another kind of observation is asked for than the ID names.
    """
    if name not in IDS:
        raise unknown("craftax", name, closest(name))
    pixels = "Pixels" in name
    other = name.replace("Pixels", "Symbolic") if pixels else name.replace("Symbolic", "Pixels")
    refuse_obs(config, "state" if pixels else "pixels", "both", reason=f"there is `craftax:{other}`")
    return JaxVectorEnv(_task(name, pixels=pixels), config, num_envs=num_envs, seed=seed)


def closest(name: str) -> str | None:
    """The ID that was probably meant, or None."""
    return closest_of(name, IDS)


def _task(name: str, *, pixels: bool) -> JaxTask:
    env: Any = make_craftax_env_from_name(name, auto_reset=False)
    params = env.default_params
    unlimited = params.replace(max_timesteps=NO_LIMIT)

    def seen(obs: Array) -> Array:
        return jnp.round(255 * obs).astype(jnp.uint8) if pixels else obs

    def reset(key: PRNGKey) -> tuple[Any, Any]:
        obs, state = env.reset_env(key, params)
        return state, seen(obs)

    def step(key: PRNGKey, state: Any, action: Array) -> tuple[Any, Arrival]:
        obs, state, reward, done, info = env.step_env(key, state, action, params)
        terminated = env.is_terminal(state, unlimited)
        metrics = {
            f"achievement_{name.removeprefix(ACHIEVEMENT)}": value / 100
            for name, value in info.items()
            if name.startswith(ACHIEVEMENT)
        }
        return state, Arrival(seen(obs), reward, terminated, done & ~terminated, metrics)

    def draw(state: Any) -> Array:
        return paint(state).astype(jnp.uint8)

    # The two games are two packages, which load all their pictures when they are imported.
    package = "craftax.craftax_classic" if "Classic" in name else "craftax.craftax"
    paint = importlib.import_module(f"{package}.renderer").make_craftax_pixel_renderer(BLOCK)
    shape = env.observation_space(params).shape
    observation = Box(0, 255, shape, np.uint8) if pixels else Box(-np.inf, np.inf, shape, np.float32)
    return JaxTask(observation, Discrete(env.num_actions), reset, step, draw)
