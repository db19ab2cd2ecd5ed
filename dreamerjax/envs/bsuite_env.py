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
    """The environment of an experiment's number; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is none of that name.
        EnvError: pixels are asked for, or the data of mnist cannot be downloaded.
    """
    if name not in sweep.SWEEP:
        raise unknown("bsuite", name, closest(name))
    refuse_obs(config, "pixels", "both", reason="these tasks have no pixels")
    try:
        return BehaviourEnv(name)
    except OSError as error:
        raise EnvError(f"bsuite:{name}: its data cannot be downloaded: {error}") from error


def closest(name: str) -> str | None:
    """The experiment that was probably meant, or None."""
    return closest_of(name, sweep.SWEEP)


class BehaviourEnv(gymnasium.Env):
    """One experiment. Its number fixes the task, the seed what happens by chance.

    Time limits end an episode as the task's own ends do: so the suite has it. What the suite scores, such as
    `total_regret`, is summed over the episodes of this copy, and told at the end of each.
    """

    def __init__(self, name: str) -> None:
        """Loads the experiment."""
        self._name = name
        self._env: Any = _load(name, seed=0)
        # Boards are two-dimensional; no bounds are promised, as the suite's own are not kept to.
        self.observation_space = Box(-np.inf, np.inf, self._env.observation_spec().shape, np.float32)
        self.action_space = Discrete(self._env.action_spec().num_values)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; a seed starts a whole sequence of them."""
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
    """The experiment with random numbers of its own; the suite takes a seed for some experiments only."""
    env = layer = bsuite.load(name.partition("/")[0], sweep.SETTINGS[name])
    generator = np.random.RandomState(seed)  # what the suite draws from
    while layer is not None:
        vars(layer)["_rng"] = generator
        layer = vars(layer).get("_env")
    return env


def _restored(kind: type, attributes: dict[str, Any]) -> Any:
    layer = object.__new__(kind)
    vars(layer).update(attributes)
    return layer


for wrapper in (RewardNoise, RewardScale):  # they ask what they wrap for all that they lack: pickle would never end
    copyreg.pickle(wrapper, lambda layer: (_restored, (type(layer), vars(layer))))
