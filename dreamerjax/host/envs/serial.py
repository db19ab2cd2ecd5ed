"""Copies of an environment, stepped one after the other in this process."""

import io
import pickle
import traceback
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.host.envs import EnvError, EnvFailureError, Event, VectorEnv, copy_seeds, make_single, placing
from dreamerjax.host.envs.frames import PICTURE_MODES, drawn
from dreamerjax.host.envs.spaces import LARGEST, BadValueError, action_of, flat_values, observation_leaves
from dreamerjax.types import Rows, Spaces

# What pickle raises for objects that it cannot write, and for bytes that it cannot read.
UNWRITABLE = (pickle.PicklingError, AttributeError, NotImplementedError, TypeError)
UNREADABLE = (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, TypeError, ValueError)

RESETS = 10  # in a row that may give a bad first observation before it is an error whatever the settings


class SerialVectorEnv(VectorEnv):
    """Makes the rows of `dreamerjax/types.py` from `gymnasium.Env`s, and checks everything on the way."""

    def __init__(
        self,
        config: EnvConfig,
        *,
        copies: int,
        seed: int,
        first_copy: int = 0,
        envs: Sequence[gymnasium.Env] | None = None,
    ) -> None:
        """Makes the copies; see `make_env`.

        Args:
            config: of the environment.
            copies: how many.
            seed: of all copies of the run.
            first_copy: number of the first one here, where others of the run are elsewhere.
            envs: the copies, where they are made already.
        """
        self.copies = copies
        self._config, self._seed, self._first_copy = config, seed, first_copy
        self._envs = list(envs) if envs is not None else [make_single(config) for _ in range(copies)]
        self._space = self._envs[0].observation_space
        self._leaves = observation_leaves(self._space, config.image, label=config.id)
        self._action = action_of(self._envs[0].action_space, label=config.id)
        self.spaces = Spaces(tuple(leaf.spec for leaf in self._leaves), tuple(self._action.specs))
        self.steps = 0  # since the reset, for messages
        self._ended = np.zeros(copies, bool)
        self._events: list[Event] = []
        self._failed = False

    def reset(self, seed: int | None = None) -> Rows:
        """See `VectorEnv.reset`."""
        if seed is not None:
            self._seed = seed
        self.steps = 0
        rows = self._empty_rows()
        seeds = copy_seeds(self._seed, self._first_copy + self.copies)[self._first_copy :]
        for index, own in enumerate(seeds):
            self._start(rows, index, seed=own)
        self._ended = rows.is_last.copy()
        self._failed = False
        return rows

    def step(self, action: np.ndarray) -> Rows:
        """See `VectorEnv.step`."""
        expected = (self.copies, self.spaces.action_size)
        if action.shape != expected:
            raise ValueError(f"The actions have the shape {action.shape}, expected [copies, A] = {expected}.")
        self.steps += 1
        finite = np.isfinite(action)
        if not finite.all():
            index = int(np.argwhere(~finite)[0, 0])
            raise EnvError(self._told(index, f"the action is not finite: {action[index]}"))
        rows = self._empty_rows()
        rows.prev_action[:] = action
        self._failed = True  # until it has not
        for index, own in enumerate(self._action.to_env(action)):
            if self._ended[index]:
                self._start(rows, index)
            else:
                self._advance(rows, index, own)
        self._failed = False
        self._ended = rows.is_last.copy()
        return rows

    def render(self) -> np.ndarray | None:
        """See `VectorEnv.render`."""
        env = self._envs[0]
        return drawn(env.render, self._config.id) if env.render_mode in PICTURE_MODES else None

    def place(self, seen: np.ndarray) -> bool:
        """See `VectorEnv.place`."""
        if not placing.can_place(self._envs[0]):
            return False
        placing.place(self._envs[0], seen)
        self._ended[0] = False
        return True

    def take_events(self) -> list[Event]:
        """See `VectorEnv.take_events`."""
        events, self._events = self._events, []
        return events

    def state(self) -> bytes | None:
        """See `VectorEnv.state`."""
        if self._failed:  # some copies have made a step that nobody saw
            return None
        # EzPickle stores how an environment was made, not where it is: it would come back, but elsewhere.
        if any(isinstance(layer, gymnasium.utils.EzPickle) for layer in _layers(self._envs[0])):
            return None
        written = io.BytesIO()
        try:
            _Pickler(written).dump((self._config.id, self.copies, self.steps, self._ended, self._envs))
        except UNWRITABLE:
            return None
        return written.getvalue()

    def load(self, state: bytes) -> None:
        """See `VectorEnv.load`."""
        try:
            env_id, copies, steps, ended, envs = pickle.loads(state)
        except UNREADABLE as error:
            raise EnvError(f"The saved state of {self._config.id} cannot be read: {error}") from error
        if (env_id, copies) != (self._config.id, self.copies):
            raise EnvError(
                f"The saved state is of {copies} copies of {env_id}, expected {self.copies} of {self._config.id}."
            )
        self.close()
        self.steps, self._ended, self._envs, self._failed = steps, ended, envs, False

    def close(self) -> None:
        """See `VectorEnv.close`."""
        for env in self._envs:
            env.close()

    def _empty_rows(self) -> Rows:
        flags = np.zeros((3, self.copies), bool)
        return Rows(
            obs={spec.name: np.empty((self.copies, *spec.shape), spec.dtype) for spec in self.spaces.obs},
            prev_action=np.zeros((self.copies, self.spaces.action_size), np.float32),
            reward=np.zeros(self.copies, np.float32),
            is_first=flags[0],
            is_last=flags[1],
            is_terminal=flags[2],
        )

    def _start(self, rows: Rows, index: int, *, seed: int | None = None) -> None:
        """The first row of a new episode."""
        for attempt in range(RESETS):
            try:
                obs, _ = self._envs[index].reset(seed=seed if attempt == 0 else None)
            except Exception as error:
                raise self._failure(index, error) from error
            try:
                self._see(rows, index, obs)
                break
            except BadValueError as error:
                if self._config.on_bad_observation == "stop" or attempt == RESETS - 1:
                    raise EnvError(self._told(index, str(error))) from error
                self._events.append(Event(index, interrupted=self._told(index, str(error))))
        rows.prev_action[index] = 0
        rows.reward[index] = 0
        rows.is_first[index] = True
        rows.is_last[index] = rows.is_terminal[index] = False

    def _advance(self, rows: Rows, index: int, action: Any) -> None:
        """The row that an action leads to; or the first one of a new episode, if what it leads to is no good."""
        reward, terminated, truncated, info = 0.0, False, False, {}
        obs: Any = None
        for _ in range(self._config.action_repeat):
            try:
                obs, earned, terminated, truncated, info = self._envs[index].step(action)
            except Exception as error:
                raise self._failure(index, error) from error
            reward += float(earned)
            if terminated or truncated:
                break
        try:
            self._see(rows, index, obs)
            if not -LARGEST <= reward <= LARGEST:
                raise BadValueError(f"the reward is not finite: {reward}")
        except BadValueError as error:
            if self._config.on_bad_observation == "stop":
                raise EnvError(self._told(index, str(error))) from error
            self._events.append(Event(index, interrupted=self._told(index, str(error))))
            self._start(rows, index)
            return
        rows.reward[index] = reward
        rows.is_last[index] = terminated or truncated
        rows.is_terminal[index] = terminated
        if rows.is_last[index] and "metrics" in info:
            self._events.append(Event(index, metrics=info["metrics"]))

    def _failure(self, index: int, error: Exception) -> EnvFailureError:
        """What the environment's own code raised, told with where it did."""
        what, trace = f"raised {type(error).__name__}: {error}", traceback.format_exc()
        return EnvFailureError(f"{self._told(index, f'it {what}')}\n{trace}".rstrip(), what, trace)

    def _see(self, rows: Rows, index: int, obs: Any) -> None:
        try:
            values = list(flat_values(self._space, obs))
        except BadValueError as error:
            raise BadValueError(f"the observation {error}") from error
        for leaf, value in zip(self._leaves, values, strict=True):
            try:
                rows.obs[leaf.spec.name][index] = leaf.take(value)
            except BadValueError as error:
                raise BadValueError(f"the observation '{leaf.spec.name}' {error}") from error

    def _told(self, index: int, what: str) -> str:
        return f"{self._config.id}: {what} (copy {self._first_copy + index}, step {self.steps})."


class _Pickler(pickle.Pickler):
    """Leaves out what takes much room and says little.

    Those are the windows of pygame, which an environment opens again where it finds none, and the bounds of a picture,
    which a space keeps for each pixel (2.9 MB of the 600 x 400 that CartPole draws).
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__.partition(".")[0] == "pygame":
            return _nothing, ()
        if type(obj) is gymnasium.spaces.Box and obj.dtype == np.uint8:
            return gymnasium.spaces.Box, (obj.low.min(), obj.high.max(), obj.shape, np.uint8)
        return NotImplemented


def _nothing() -> None:
    return None


def _layers(env: gymnasium.Env) -> Sequence[gymnasium.Env]:
    """An environment's wrappers from the outermost in, and the environment itself."""
    layers = [env]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        layers.append(env)
    return layers
