"""An environment that can deviate from Gymnasium's API, and its rows."""

from types import SimpleNamespace

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs.serial import SerialVectorEnv

LEFT = np.float32([[1, 0]])
VECTOR = Box(-1.0, 1.0, (3,), np.float32)


class Counting(gymnasium.Env):
    """Observes its step three times; an episode has nine steps. Its return values can be replaced."""

    observation_space, action_space = Box(-np.inf, np.inf, (3,), np.float32), Discrete(2)

    def __init__(self, **given):
        vars(self).update(given)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.give("see", np.full(3, 0.0, np.float32)), {}

    def step(self, action):
        self.time += 1
        obs = self.give("see", np.full(3, self.time, np.float32))
        info = self.give("info", {})
        return obs, self.give("pay", 1.0), self.give("terminated", self.time == 9), self.give("truncated", False), info

    def give(self, name, otherwise):
        given = vars(self).get(name, otherwise)
        return given(self.time) if callable(given) else given


def serial(env, **config) -> SerialVectorEnv:
    return SerialVectorEnv(EnvConfig(id="module:Env", **config), num_envs=1, seed=0, envs=[env])


def played(env, steps=1) -> SimpleNamespace:
    """All rows, and the notes of the events."""
    rows = [env.reset(), *(env.step(LEFT) for _ in range(steps))]
    events = env.take_events()
    notes = [event.note for event in events if event.note]
    return SimpleNamespace(rows=rows, events=events, notes=notes, last=rows[-1])
