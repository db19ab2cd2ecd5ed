"""The Behaviour Suite, `bsuite:EXPERIMENT/NUMBER` such as bsuite:catch/0."""

import copyreg
from typing import Any

import bsuite  # pyright: ignore[reportMissingImports]
import gymnasium
import numpy as np
from bsuite import sweep  # pyright: ignore[reportMissingImports]
from bsuite.utils.wrappers import RewardNoise, RewardScale  # pyright: ignore[reportMissingImports]
from gymnasium.spaces import Box, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError
from dreamerjax.envs.names import closest_of, refuse_obs, unknown


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """Makes the environment of an experiment's number; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is no environment of that name.
        EnvError: pixels are requested, or the data of mnist cannot be downloaded.
    """
    if name not in sweep.SWEEP:
        raise unknown("bsuite", name, closest(name))
    refuse_obs(config, "pixels", "both", reason="these tasks have no pixels")
    try:
        return BehaviourEnv(name)
    except OSError as error:
        raise EnvError(f"bsuite:{name}: its data cannot be downloaded: {error}") from error


def closest(name: str) -> str | None:
    """The experiment closest to a misspelled name, or None."""
    return closest_of(name, sweep.SWEEP)


class BehaviourEnv(gymnasium.Env):
    """One experiment. Its number determines the task; the seed determines all randomness.

    bsuite does not distinguish time limits from ends of the task. Its scores, such as `total_regret`, are summed over
    the episodes of this environment and reported as metrics at the end of each.
    """

    def __init__(self, name: str) -> None:
        """Loads the experiment."""
        self._name = name
        self._env: Any = _load(name, seed=0)
        # Boards are two-dimensional. No bounds are declared, because observations leave those of bsuite.
        self.observation_space = Box(-np.inf, np.inf, self._env.observation_spec().shape, np.float32)
        self.action_space = Discrete(self._env.action_spec().num_values)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; a seed determines this and all following episodes."""
        super().reset(seed=seed)
        if seed is not None:
            self._env = _load(self._name, seed)
        return np.asarray(self._env.reset().observation, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step."""
        now = self._env.step(action)
        last = bool(now.last())
        info = {"metrics": {key: float(value) for key, value in self._env.bsuite_info().items()}} if last else {}
        terminated = last and now.discount == 0
        return np.asarray(now.observation, np.float32), float(now.reward), terminated, last and not terminated, info


def _load(name: str, seed: int) -> Any:
    """The experiment with a seeded random generator; bsuite takes a seed for some experiments only."""
    env = layer = bsuite.load(name.partition("/")[0], sweep.SETTINGS[name])
    generator = np.random.RandomState(seed)  # the type that bsuite uses
    while layer is not None:
        vars(layer)["_rng"] = generator
        layer = vars(layer).get("_env")
    return env


def _restored(kind: type, attributes: dict[str, Any]) -> Any:
    layer = object.__new__(kind)
    vars(layer).update(attributes)
    return layer


for wrapper in (RewardNoise, RewardScale):  # their `__getattr__` makes pickle recurse without end
    copyreg.pickle(wrapper, lambda layer: (_restored, (type(layer), vars(layer))))
