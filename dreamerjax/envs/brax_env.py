"""Brax, `brax:NAME` such as brax:ant: MuJoCo's classics, stepped in batch."""

import contextlib
import io
import warnings
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from dreamerjax.config import EnvConfig
from dreamerjax.envs.jax_native import Arrival, JaxTask, JaxVectorEnv
from dreamerjax.envs.names import closest_of, refuse_obs, unknown
from dreamerjax.types import Array, PRNGKey

with contextlib.redirect_stdout(io.StringIO()):  # MuJoCo prints which other packages it would like
    from brax import envs  # pyright: ignore[reportMissingImports]

LIMIT = 1000  # steps of an episode


def make_vector(name: str, config: EnvConfig, *, num_envs: int, seed: int) -> JaxVectorEnv:
    """The copies of a name; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is none of that name.
        EnvError: pixels are asked for; nothing draws them on the device.
    """
    if name not in _names():
        raise unknown("brax", name, closest(name))
    refuse_obs(config, "pixels", "both", reason="nothing draws these tasks on the device")
    return JaxVectorEnv(_task(name), config, num_envs=num_envs, seed=seed)


def closest(name: str) -> str | None:
    """The name that was probably meant, or None."""
    return closest_of(name, _names())


def _task(name: str) -> JaxTask:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that Brax is no longer worked on
        env: Any = envs.create(name, episode_length=LIMIT, auto_reset=False)

    def reset(key: PRNGKey) -> tuple[Any, Any]:
        state = env.reset(key)
        return state, state.obs

    def step(key: PRNGKey, state: Any, action: Array) -> tuple[Any, Arrival]:
        del key  # what happens by chance is drawn from the state's own
        state = env.step(state, action)
        truncated = state.info["truncation"] > 0
        sums = state.info["episode_metrics"]
        metrics = {key: sums[key] for key in sums if key not in ("sum_reward", "length", "reward")}
        return state, Arrival(state.obs, state.reward, (state.done > 0) & ~truncated, truncated, metrics)

    observation = Box(-np.inf, np.inf, (env.observation_size,), np.float32)
    return JaxTask(observation, Box(-1.0, 1.0, (env.action_size,), np.float32), reset, step)


def _names() -> list[str]:
    return [name for name in envs._envs if name != "fast"]  # which is a test
