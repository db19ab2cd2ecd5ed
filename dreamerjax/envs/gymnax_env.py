"""Gymnax, `gymnax:ID` such as gymnax:CartPole-v1: classic control, MinAtar and others, stepped in batch."""

from typing import Any

import gymnasium
import gymnax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces  # pyright: ignore[reportMissingImports]
from gymnax.registration import registered_envs  # pyright: ignore[reportMissingImports]

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError
from dreamerjax.envs.jax_native import Arrival, JaxTask, JaxVectorEnv
from dreamerjax.envs.names import closest_of, refuse_obs, unknown
from dreamerjax.types import Array, PRNGKey

NO_LIMIT = 2**30  # steps
NAMES = [name for name in registered_envs if name != "SimpleBandit-bsuite"]  # which fails


def make_vector(name: str, config: EnvConfig, *, num_envs: int, seed: int) -> JaxVectorEnv:
    """The copies of an ID; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is none of that name.
        EnvError: pixels are asked for, or the data of a task cannot be downloaded.
    """
    if name not in NAMES:
        raise unknown("gymnax", name, closest(name))
    refuse_obs(config, "pixels", "both", reason="these tasks have no pixels")
    try:
        return JaxVectorEnv(_task(name), config, num_envs=num_envs, seed=seed)
    except OSError as error:
        raise EnvError(f"gymnax:{name}: its data cannot be downloaded: {error}") from error


def closest(name: str) -> str | None:
    """The ID that was probably meant, or None."""
    return closest_of(name, NAMES)


def _task(name: str) -> JaxTask:
    env, params = gymnax.make(name)
    unlimited = params.replace(max_steps_in_episode=NO_LIMIT)

    def reset(key: PRNGKey) -> tuple[Any, Any]:
        obs, state = env.reset_env(key, params)
        return state, obs

    def step(key: PRNGKey, state: Any, action: Array) -> tuple[Any, Arrival]:
        obs, state, reward, done, _ = env.step_env(key, state, action, params)
        # Gymnax counts its time limits as ends of the task: it is not one where, without a limit, it would go on.
        late = state.time >= params.max_steps_in_episode
        truncated = done & late & ~env.is_terminal(state, unlimited)
        return state, Arrival(obs, jnp.asarray(reward), done & ~truncated, truncated, {})

    return JaxTask(_space(env.observation_space(params)), _space(env.action_space(params), bounded=True), reset, step)


def _space(space: Any, *, bounded: bool = False) -> gymnasium.Space:
    """Gymnasium's space; of observations, whose bounds Gymnax does not keep, without bounds."""
    if isinstance(space, spaces.Discrete):
        return gymnasium.spaces.Discrete(space.n)
    low, high = (space.low, space.high) if bounded else (-np.inf, np.inf)
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (low, high))
    return gymnasium.spaces.Box(low, high, space.shape, np.float32)
