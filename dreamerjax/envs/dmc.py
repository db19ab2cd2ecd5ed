"""DeepMind Control, `dmc:DOMAIN-TASK` such as dmc:walker-walk: proprioception, pixels, or both."""

import pickle
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, mujoco_gl
from dreamerjax.envs.names import closest_of, unknown
from dreamerjax.envs.pixels import KEY

mujoco_gl.choose()

try:
    from dm_control import suite  # pyright: ignore[reportMissingImports]
except (AttributeError, RuntimeError) as broken:  # what PyOpenGL and dm_control raise
    raise ImportError(f"MUJOCO_GL={mujoco_gl.value()} does not work here: {broken}") from broken

CAMERAS = {"quadruped": 2}  # of a domain; elsewhere 0, as published
FILM = (240, 320)  # pixels, height and width of what `render` shows


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The environment of a task; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is no such task.
        EnvError: pixels are asked for, and nothing can draw them.
    """
    task = _tasks().get(_normal(name))
    if task is None:
        raise unknown("dmc", name, closest(name))
    if config.obs in ("pixels", "both") and not mujoco_gl.draws():
        raise EnvError(f"{config.id}: env.obs is {config.obs}, but {mujoco_gl.ADVICE}")
    return ControlEnv(*task, config)


def closest(name: str) -> str | None:
    """The task that was probably meant, or None."""
    found = closest_of(_normal(name), _tasks())
    return "-".join(_tasks()[found]) if found else None


class ControlEnv(gymnasium.Env):
    """One task. Each part of the observation is a vector of its own; `image` is what the camera sees."""

    def __init__(self, domain: str, task: str, config: EnvConfig) -> None:
        """Loads the task."""
        self._task, self._camera = (domain, task), CAMERAS.get(domain, 0)
        self._image = (config.image.height, config.image.width) if config.obs in ("pixels", "both") else None
        self._keep_state = config.obs != "pixels"
        self.render_mode = "rgb_array" if mujoco_gl.draws() else None
        self._env: Any = suite.load(domain, task, task_kwargs={"random": 0})
        spaces: dict[str, gymnasium.Space] = {}
        if self._keep_state:
            # What dm_control says of bounds is not kept to; none are promised here.
            parts = self._env.observation_spec().items()
            spaces |= {key: Box(-np.inf, np.inf, part.shape, np.float64) for key, part in parts}
        if self._image:
            spaces[KEY] = Box(0, 255, (*self._image, 3), np.uint8)
        self.observation_space = Dict(spaces)
        action = self._env.action_spec()
        self.action_space = Box(np.float32(action.minimum), np.float32(action.maximum), action.shape, np.float32)

    @property
    def action_names(self) -> list[str]:
        """The actuators of its body."""
        return self._env.action_spec().name.split("\t")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; a seed starts a whole sequence of them."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.close()
            self._env = suite.load(*self._task, task_kwargs={"random": seed})
        return self._seen(self._env.reset()), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step. Most tasks only ever end by their time limit."""
        now = self._env.step(action)
        terminated = now.last() and now.discount == 0
        return self._seen(now), float(now.reward), terminated, now.last() and not terminated, {}

    def render(self) -> np.ndarray:
        """What the camera sees, to look at."""
        return self._env.physics.render(*FILM, camera_id=self._camera)

    def close(self) -> None:
        """Frees the simulation."""
        self._env.close()

    def __getstate__(self) -> bytes:
        return zlib.compress(pickle.dumps(vars(self)), level=1)  # most of MuJoCo's 12 MB are zeros

    def __setstate__(self, state: bytes) -> None:
        vars(self).update(pickle.loads(zlib.decompress(state)))

    def _seen(self, now: Any) -> dict[str, Any]:
        seen = dict(now.observation) if self._keep_state else {}
        if self._image:
            seen[KEY] = Picture(partial(self._env.physics.render, *self._image, camera_id=self._camera))
        return seen


class Picture:
    """Drawn when it becomes an array, which is most of a step's time: of repeated actions, only the last one's is."""

    def __init__(self, draw: Callable[[], np.ndarray]) -> None:
        """Takes what draws it, as the simulation is then."""
        self._draw = draw

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._draw(), dtype)


def _normal(name: str) -> str:
    """One spelling of a task: cup-catch, ball_in_cup-catch and ball-in-cup-catch are the same."""
    name = name.lower().replace("_", "-")
    return f"ball-in-{name}" if name.startswith("cup-") else name


def _tasks() -> dict[str, tuple[str, str]]:
    """Spelling -> (domain, task)."""
    return {_normal(f"{domain}-{task}"): (domain, task) for domain, task in suite.ALL_TASKS}
