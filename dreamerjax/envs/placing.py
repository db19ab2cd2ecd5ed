"""Sets an environment's state from an observation, to render a dreamed observation or to start from any moment."""

from collections.abc import Callable, Mapping

import gymnasium
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)


def _pendulum(seen: np.ndarray) -> np.ndarray:
    cos, sin, speed = seen
    return np.array([np.arctan2(sin, cos), speed])


def _acrobot(seen: np.ndarray) -> np.ndarray:
    cos1, sin1, cos2, sin2, *speeds = seen
    return np.array([np.arctan2(sin1, cos1), np.arctan2(sin2, cos2), *speeds])


# Class of the environment -> its `state` from its observation.
_STATES: Mapping[type[gymnasium.Env], Callable[[np.ndarray], np.ndarray]] = {
    CartPoleEnv: lambda seen: seen,
    MountainCarEnv: lambda seen: seen,
    Continuous_MountainCarEnv: lambda seen: seen,
    PendulumEnv: _pendulum,
    AcrobotEnv: _acrobot,
}


def can_place(env: gymnasium.Env) -> bool:
    """Whether `place` supports this environment."""
    return type(env.unwrapped) in _STATES


def place(env: gymnasium.Env, seen: np.ndarray) -> None:
    """Sets the state of a classic control environment so that its observation is `seen` [size]; reset it before."""
    inner = env.unwrapped
    inner.state = _STATES[type(inner)](np.asarray(seen, np.float64))  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(inner, CartPoleEnv):
        inner.steps_beyond_terminated = None
    if isinstance(inner, PendulumEnv):
        inner.last_u = None  # do not draw the torque arrow
