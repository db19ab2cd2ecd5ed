"""Gymnasium environments, `gym:ID`: the ID as Gymnasium has it, or `module:ID` to import your own module first.

Gymnasium's vector environments in their NEXT_STEP autoreset mode hand out exactly the rows of
`dreamerjax/types.py`: the last observation of an episode, then the first of the next one with no reward.
"""

import difflib
import functools
import importlib
import pickle
from typing import TypeGuard

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from dreamerjax.host.envs import EnvError, UnknownEnvironmentError, UnsupportedSpaceError, VectorEnv
from dreamerjax.types import ActionSpec, ObsSpec, Rows, Spaces

VECTOR = "state"  # the key of an observation that is not a dictionary

# What pickle raises for objects that it cannot write, and for bytes that it cannot read.
UNWRITABLE = (pickle.PicklingError, AttributeError, NotImplementedError, TypeError)
UNREADABLE = (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, TypeError, ValueError)


class GymVectorEnv(VectorEnv):
    """Copies of one Gymnasium environment, stepped one after the other in this process."""

    def __init__(self, name: str, *, copies: int, seed: int) -> None:
        """Makes the copies; see `make_env`."""
        self.copies = copies
        self._name = name
        self._seed = seed
        self._envs = _make(name, copies)
        self._steps = 0
        self._ended = np.zeros(copies, bool)
        self.spaces = Spaces(_obs_specs(name, self._envs), _action_spec(name, self._envs))

    def reset(self, seed: int | None = None) -> Rows:
        """See `VectorEnv.reset`."""
        if seed is not None:
            self._seed = seed
        seeds = np.random.SeedSequence(self._seed).generate_state(self.copies)
        obs, _ = self._envs.reset(seed=[int(word) for word in seeds])
        self._steps = 0
        self._ended = np.zeros(self.copies, bool)
        return Rows(
            obs=self._obs(obs),
            prev_action=np.zeros((self.copies, self.spaces.action.size), np.float32),
            reward=np.zeros(self.copies, np.float32),
            is_first=np.ones(self.copies, bool),
            is_last=np.zeros(self.copies, bool),
            is_terminal=np.zeros(self.copies, bool),
        )

    def step(self, action: np.ndarray) -> Rows:
        """See `VectorEnv.step`."""
        expected = (self.copies, self.spaces.action.size)
        if action.shape != expected:
            raise ValueError(f"The actions have the shape {action.shape}, expected [copies, A] = {expected}.")
        self._steps += 1
        action = self._finite("action", action)
        is_first = self._ended
        obs, reward, terminated, truncated, _ = self._envs.step(self._env_action(action))
        self._ended = terminated | truncated
        return Rows(
            obs=self._obs(obs),
            prev_action=np.where(is_first[:, None], np.float32(0.0), action),
            reward=self._finite("reward", reward),
            is_first=is_first,
            is_last=self._ended,
            is_terminal=terminated,
        )

    def state(self) -> bytes | None:
        """See `VectorEnv.state`."""
        # EzPickle stores how an environment was made, not where it is: it would come back, but elsewhere.
        if any(isinstance(layer, gymnasium.utils.EzPickle) for layer in _layers(self._envs.envs[0])):
            return None
        try:
            return pickle.dumps((self._name, self.copies, self._steps, self._ended, self._envs))
        except UNWRITABLE:
            return None

    def load(self, state: bytes) -> None:
        """See `VectorEnv.load`."""
        try:
            name, copies, steps, ended, envs = pickle.loads(state)
        except UNREADABLE as error:
            raise EnvError(f"The saved state of gym:{self._name} cannot be read: {error}") from error
        if (name, copies) != (self._name, self.copies):
            raise EnvError(
                f"The saved state is of {copies} copies of gym:{name}, expected {self.copies} of gym:{self._name}."
            )
        self._envs.close()
        self._steps, self._ended, self._envs = steps, ended, envs

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._envs.close()

    def _env_action(self, action: np.ndarray) -> np.ndarray:
        """The agent's action as the environment wants it."""
        space = self._envs.single_action_space
        if isinstance(space, Discrete):
            return space.start + action.argmax(axis=-1)
        assert isinstance(space, Box)
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        return np.clip(low + 0.5 * (action + 1.0) * (high - low), low, high).astype(space.dtype)

    def _obs(self, obs: np.ndarray | dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Observations by name."""
        named = obs if isinstance(obs, dict) else {VECTOR: obs}
        return {name: self._finite(f"observation '{name}'", value) for name, value in named.items()}

    def _finite(self, what: str, value: np.ndarray) -> np.ndarray:
        """A float32 copy of one value for each environment copy, [copies, ...]; an error if it is not finite."""
        with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused below
            value = value.astype(np.float32)
        finite = np.isfinite(value)
        if not finite.all():
            copy = int(np.argwhere(~finite)[0, 0])
            raise EnvError(
                f"gym:{self._name}: the {what} of copy {copy} is not finite at step {self._steps}: {value[copy]}."
            )
        return value


def closest(name: str) -> str | None:
    """The registered ID that was probably meant, or None."""
    by_lower = {known.lower(): known for known in gymnasium.registry}
    # Of equally close ones the last in the alphabet comes first, which is the newest version.
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def _make(name: str, copies: int) -> SyncVectorEnv:
    """The environments, or an error that says why there are none."""
    module, _, registered = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except (ImportError, TypeError) as error:  # TypeError: a relative name
            raise UnknownEnvironmentError(f"gym:{name}: the module `{module}` cannot be imported: {error}") from error
    if registered not in gymnasium.registry:
        meant = closest(registered)
        advice = f"Did you mean `gym:{meant}`?" if meant else "Is the package that registers it installed?"
        raise UnknownEnvironmentError(f"Gymnasium knows no environment `{registered}`. {advice}")
    # The environment checker would warn about things that the agent does not mind, or that are checked here.
    make = functools.partial(gymnasium.make, registered, disable_env_checker=True)
    try:
        # `copy=False`: the observations are copied here, as they become float32.
        return SyncVectorEnv([make] * copies, copy=False, autoreset_mode=AutoresetMode.NEXT_STEP)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnknownEnvironmentError(f"gym:{name} cannot be made: {error}") from error


def _layers(env: gymnasium.Env) -> list[gymnasium.Env]:
    """An environment's wrappers from the outermost in, and the environment itself."""
    layers = [env]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        layers.append(env)
    return layers


def _obs_specs(name: str, envs: SyncVectorEnv) -> tuple[ObsSpec, ...]:
    space = envs.single_observation_space
    spaces = dict(space.items()) if isinstance(space, gymnasium.spaces.Dict) else {VECTOR: space}
    if not spaces:
        raise UnsupportedSpaceError(
            f"gym:{name}: the observation is an empty Dict, expected at least one Box of rank 1."
        )
    specs = []
    for key, part in spaces.items():
        if not _is_vector(part):
            raise UnsupportedSpaceError(
                f"gym:{name}: the observation '{key}' is {_short(part)}, which is not supported.\n"
                "Supported are a Box of rank 1 and a Dict of those; gymnasium.wrappers.FlattenObservation makes most "
                "others into one."
            )
        specs.append(ObsSpec(key, part.shape))
    return tuple(specs)


def _action_spec(name: str, envs: SyncVectorEnv) -> ActionSpec:
    space = envs.single_action_space
    if isinstance(space, Discrete):
        return ActionSpec("discrete", int(space.n))
    if _is_vector(space) and np.issubdtype(space.dtype, np.floating) and space.is_bounded():
        return ActionSpec("continuous", space.shape[0])
    raise UnsupportedSpaceError(
        f"gym:{name}: the action is {_short(space)}, which is not supported.\n"
        "Supported are Discrete and a float Box of rank 1 with finite bounds."
    )


def _is_vector(space: gymnasium.Space) -> TypeGuard[Box]:
    return isinstance(space, Box) and len(space.shape) == 1 and space.shape[0] > 0


def _short(space: gymnasium.Space) -> str:
    """The space in one line."""
    text = " ".join(repr(space).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
