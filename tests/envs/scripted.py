"""Environments that play back observations, and what tests of environments share."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from dreamerjax.config import EnvConfig
from dreamerjax.envs import (
    VectorEnv,
    make_env,
)
from dreamerjax.types import Rows

VECTOR = Box(-1.0, 1.0, (2,), np.float32)


BUTTON = Discrete(2)


ONE_HOT = np.eye(2, dtype=np.float32)


class Scripted(gymnasium.Env):
    """Returns the given observations, one for each step, and records the actions."""

    def __init__(self, observation_space: Space = VECTOR, action_space: Space = BUTTON, observations=(), reward=0.0):
        self.observation_space, self.action_space = observation_space, action_space
        self.observations, self.reward = observations, reward
        self.actions, self.keep = [], np.copy

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._next(), {}

    def step(self, action):
        self.actions.append(self.keep(action))
        return self._next(), self.reward, False, False, {}

    def _next(self):
        played = len(self.actions)
        return self.observations[played] if played < len(self.observations) else self.observation_space.sample()


class Forgetful(Scripted, gymnasium.utils.EzPickle):
    """Its pickle contains only its constructor arguments, as in many simulators."""

    def __init__(self):
        gymnasium.utils.EzPickle.__init__(self)
        super().__init__()


class Unpicklable(Scripted):
    """Has an attribute that cannot be pickled."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stream = (value for value in ())


def make(env_id: str, *, num_envs: int, seed: int, **options) -> VectorEnv:
    return make_env(EnvConfig(id=env_id, **options), num_envs=num_envs, seed=seed)


def float32(values) -> np.ndarray:
    return np.asarray(values, np.float32)


def assert_same(left: Rows, right: Rows) -> None:
    assert left.obs.keys() == right.obs.keys()
    for name in left.obs:
        np.testing.assert_array_equal(left.obs[name], right.obs[name])
    for one, other in zip(left[1:], right[1:], strict=True):
        np.testing.assert_array_equal(one, other)
