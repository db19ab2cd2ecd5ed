"""Copies of an environment, stepped one after another in this process."""

import traceback
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import (
    EnvError,
    EnvEvent,
    EnvFailureError,
    Goal,
    UnsupportedSpaceError,
    VectorEnv,
    copy_seeds,
    make_single,
    placing,
    saving,
    with_install_line,
)
from dreamerjax.envs.action_names import own_action_names
from dreamerjax.envs.actions import Action, action_of
from dreamerjax.envs.frames import PICTURE_MODES, render_frame
from dreamerjax.envs.observations import (
    LARGEST,
    BadValueError,
    Observation,
    flat_values,
    observation_leaves,
    select_keys,
)
from dreamerjax.envs.reward_threshold import registered_goal
from dreamerjax.envs.step_result import StepResultError, as_reward, info_metrics, read_reset, read_step, takes_seed
from dreamerjax.types import Rows, Spaces

TRIES = 10  # consecutive attempts to start a valid episode, before it is an error with any setting

OLD_STEP = (
    "`step` returns four values, as in Gym before 2022: `done` is read as `truncated` if "
    "info['TimeLimit.truncated'] is true, else as `terminated`"
)
OLD_RESET = "`reset` returns only the observation, expected (observation, info); the observation is used"
NO_SEED = "`reset` takes no seed, so runs with the same seed may differ"


class SerialVectorEnv(VectorEnv):
    """Makes the rows of `dreamerjax/types.py` from `gymnasium.Env`s, and checks all values."""

    def __init__(
        self,
        config: EnvConfig,
        *,
        num_envs: int,
        seed: int,
        first_copy: int = 0,
        envs: Sequence[gymnasium.Env] | None = None,
    ) -> None:
        """Makes the copies; see `make_env`.

        Args:
            config: of the environment.
            num_envs: number of copies.
            seed: of all copies of the run.
            first_copy: index of this object's first copy among all copies of the run.
            envs: the copies, if they exist already.
        """
        self.num_envs = num_envs
        self._config, self._seed, self._first_copy = config, seed, first_copy
        self._envs = list(envs) if envs is not None else _made(config, num_envs)
        try:
            self._space = select_keys(_space(self._envs[0], "observation_space", config), config)
            self._leaves = observation_leaves(self._space, config)
            self._action = action_of(_space(self._envs[0], "action_space", config), label=config.id)
        except Exception:
            self.close()
            raise
        self.spaces = Spaces(tuple(leaf.spec for leaf in self._leaves), tuple(self._action.specs))
        self.descriptions = describe_spaces(self._leaves, self._action)
        self._seeded = takes_seed(self._envs[0])
        self.steps = 0  # since the reset, for messages
        self._ended = np.zeros(num_envs, bool)
        self._failed_starts = np.zeros(num_envs, int)  # consecutive episodes that failed at their first step
        self._events: list[EnvEvent] = []
        self._noted = set[str]()  # topics of notes
        self._failed = False

    def reset(self, seed: int | None = None) -> Rows:
        """See `VectorEnv.reset`."""
        if seed is not None:
            self._seed = seed
        self.steps = 0
        rows = self._empty_rows()
        seeds = copy_seeds(self._seed, self._first_copy + self.num_envs)[self._first_copy :]
        for index, own in enumerate(seeds):
            self._start(rows, index, seed=own)
        self._ended = rows.is_last.copy()
        self._failed = False
        return rows

    def step(self, action: np.ndarray) -> Rows:
        """See `VectorEnv.step`."""
        expected = (self.num_envs, self.spaces.action_size)
        if action.shape != expected:
            raise ValueError(f"The actions have the shape {action.shape}, expected [num_envs, A] = {expected}.")
        self.steps += 1
        finite = np.isfinite(action)
        if not finite.all():
            index = int(np.argwhere(~finite)[0, 0])
            raise EnvError(self._message(index, f"the action is not finite: {action[index]}"))
        rows = self._empty_rows()
        rows.prev_action[:] = action
        self._failed = True  # stays true if a copy raises
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
        return render_frame(env.render, self._config.id) if env.render_mode in PICTURE_MODES else None

    def place(self, seen: np.ndarray) -> bool:
        """See `VectorEnv.place`."""
        if not placing.can_place(self._envs[0]):
            return False
        placing.place(self._envs[0], seen)
        self._ended[0] = False
        return True

    def action_names(self) -> list[str]:
        """See `VectorEnv.action_names`."""
        return own_action_names(self._envs[0], self._action.size) or self._action.names

    def goal(self) -> Goal:
        """See `VectorEnv.goal`."""
        return registered_goal(self._envs[0])

    def take_events(self) -> list[EnvEvent]:
        """See `VectorEnv.take_events`."""
        events, self._events = self._events, []
        return events

    def end_episodes(self, copies: np.ndarray) -> None:
        """See `VectorEnv.end_episodes`."""
        self._ended |= copies

    def state(self) -> bytes | None:
        """See `VectorEnv.state`."""
        if self._failed:  # some copies made a step whose row was not returned
            return None
        return saving.write(self._config.id, self.steps, self._ended, self._envs)

    def load(self, state: bytes) -> None:
        """See `VectorEnv.load`."""
        steps, ended, envs = saving.read(state, self._config.id, self.num_envs)
        self.close()
        self.steps, self._ended, self._envs, self._failed = steps, ended, envs, False

    def close(self) -> None:
        """See `VectorEnv.close`."""
        for env in self._envs:
            env.close()

    def _empty_rows(self) -> Rows:
        flags = np.zeros((3, self.num_envs), bool)
        return Rows(
            obs={spec.name: np.empty((self.num_envs, *spec.shape), spec.dtype) for spec in self.spaces.obs},
            prev_action=np.zeros((self.num_envs, self.spaces.action_size), np.float32),
            reward=np.zeros(self.num_envs, np.float32),
            is_first=flags[0],
            is_last=flags[1],
            is_terminal=flags[2],
        )

    def _start(self, rows: Rows, index: int, *, seed: int | None = None) -> None:
        """The first row of a new episode."""
        for attempt in range(TRIES):
            obs = self._reset(index, seed if attempt == 0 else None)
            try:
                self._store_obs(rows, index, obs)
                break
            except BadValueError as error:
                self._interrupt(index, error, last_try=attempt == TRIES - 1)
        rows.prev_action[index] = 0
        rows.reward[index] = 0
        rows.is_first[index] = True
        rows.is_last[index] = rows.is_terminal[index] = False

    def _reset(self, index: int, seed: int | None) -> Any:
        """The first observation of an episode."""
        options: dict[str, Any] = {"seed": seed} if self._seeded else {}
        if not self._seeded:
            self._note(index, "no seed", NO_SEED)
        try:
            given = self._envs[index].reset(**options)
        except Exception as error:
            raise self._failure(index, error) from error
        obs, alone = read_reset(given, self._envs[index].observation_space)
        if alone:
            self._note(index, "old reset", OLD_RESET)
        return obs

    def _advance(self, rows: Rows, index: int, action: Any) -> None:
        """The row after an action; or the first row of a new episode, if that row is invalid."""
        reward, answer = 0.0, None
        try:
            for _ in range(self._config.action_repeat):
                try:
                    given = self._envs[index].step(action)
                except Exception as error:
                    raise self._failure(index, error) from error
                answer = read_step(given)
                reward += as_reward(answer.reward)
                if answer.terminated or answer.truncated:
                    break
            assert answer is not None
            self._store_obs(rows, index, answer.obs)
            if not -LARGEST <= reward <= LARGEST:
                raise BadValueError(f"the reward is not finite: {reward}")
        except StepResultError as error:
            raise EnvError(self._message(index, str(error))) from error
        except BadValueError as error:
            self._failed_starts[index] += 1
            self._interrupt(index, error, last_try=self._failed_starts[index] >= TRIES)
            self._start(rows, index)
            return
        self._failed_starts[index] = 0
        rows.reward[index] = reward
        rows.is_last[index] = answer.terminated or answer.truncated
        rows.is_terminal[index] = answer.terminated
        if answer.old:
            self._note(index, "old step", OLD_STEP)
        if rows.is_last[index] and "metrics" in answer.info:
            metrics, problem = info_metrics(answer.info)
            if problem:
                self._note(index, "metrics", problem)
            self._events.append(EnvEvent(index, metrics=metrics))

    def _interrupt(self, index: int, error: BadValueError, *, last_try: bool) -> None:
        """Interrupts an episode after an invalid value, or raises an error."""
        message = self._message(index, str(error))
        if self._config.on_bad_observation == "stop" or last_try:
            raise EnvError(message) from error
        self._events.append(EnvEvent(index, interrupted=message))

    def _failure(self, index: int, error: Exception) -> EnvFailureError:
        """The error for an exception in the environment's own code, with its traceback."""
        what, trace = f"raised {type(error).__name__}: {error}", traceback.format_exc()
        message = f"{self._message(index, f'it {what}')}\n{trace}".rstrip()
        return EnvFailureError(with_install_line(message, error), what, trace)

    def _store_obs(self, rows: Rows, index: int, obs: Any) -> None:
        try:
            values = list(flat_values(self._space, obs))
        except BadValueError as error:
            raise BadValueError(f"the observation {error}") from error
        for leaf, value in zip(self._leaves, values, strict=True):
            name = leaf.spec.name
            try:
                converted = leaf.convert(value)
            except BadValueError as error:
                raise BadValueError(f"the observation '{name}' {error}") from error
            rows.obs[name][index] = converted.value
            if converted.outside:
                self._events.append(EnvEvent(index, outside=True))
                self._note(index, f"bounds of {name}", outside_bounds_message(name, converted.outside))

    def _note(self, index: int, topic: str, text: str) -> None:
        """Adds a note, once for each topic."""
        if topic not in self._noted:
            self._noted.add(topic)
            self._events.append(EnvEvent(index, note=self._message(index, text), topic=topic))

    def _message(self, index: int, what: str) -> str:
        return f"{self._config.id}: {what} (copy {self._first_copy + index}, step {self.steps})."


def describe_spaces(leaves: Sequence[Observation], action: Action) -> tuple[str, ...]:
    """See `VectorEnv.descriptions`."""
    observations = (f"Observation {leaf.spec.name}: {leaf.description}." for leaf in leaves)
    return (*observations, f"Action: {action.description}.")


def outside_bounds_message(name: str, outside: str) -> str:
    """The note for an observation outside its declared bounds."""
    return (
        f"the observation '{name}' is outside the bounds of its space: {outside}; it is stored unchanged, training "
        "continues, and the metric env/outside_bounds counts such observations"
    )


def _made(config: EnvConfig, num_envs: int) -> list[gymnasium.Env]:
    """Makes the copies; closes them all if one of them cannot be made."""
    envs: list[gymnasium.Env] = []
    try:
        for _ in range(num_envs):
            envs.append(make_single(config))
    except BaseException:
        for env in envs:
            env.close()
        raise
    return envs


def _space(env: gymnasium.Env, which: str, config: EnvConfig) -> gymnasium.Space:
    space = getattr(env, which, None)
    if not isinstance(space, gymnasium.Space):
        raise UnsupportedSpaceError(f"{config.id}: its {which} is {space!r}, expected one of gymnasium.spaces.")
    return space
