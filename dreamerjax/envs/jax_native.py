"""Environments that are JAX functions: one call to the default device steps all of them."""

import pickle
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, EnvEvent, StateError, VectorEnv, copy_seeds
from dreamerjax.envs.actions import action_of
from dreamerjax.envs.frames import render_frame
from dreamerjax.envs.observations import BadValueError, flat_values, observation_leaves, select_keys
from dreamerjax.envs.serial import TRIES, describe_spaces, outside_bounds_message
from dreamerjax.types import Array, PRNGKey, Rows, Spaces


class Arrival(NamedTuple):
    """The result of one environment's step."""

    obs: Any  # in the observation space
    reward: Array  # []
    terminated: Array  # [] bool
    truncated: Array  # [] bool
    metrics: dict[str, Array]  # [] each; reported with their values at the end of an episode


class JaxTask(NamedTuple):
    """One environment, as functions that JAX can trace."""

    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    reset: Callable[[PRNGKey], tuple[Any, Any]]  # key -> state, observation
    step: Callable[[PRNGKey, Any, Any], tuple[Any, Arrival]]  # key, state, action -> state, arrival
    draw: Callable[[Any], Array] | None = None  # state -> [height, width, 3] uint8


class Copy(NamedTuple):
    """The state of one environment; those of all environments are stacked."""

    key: PRNGKey
    state: Any


class JaxVectorEnv(VectorEnv):
    """Steps all environments together. `reset` is computed only in steps in which an environment starts an episode."""

    def __init__(self, task: JaxTask, config: EnvConfig, *, num_envs: int, seed: int) -> None:
        """Prepares the environments; nothing is compiled before the first `reset`.

        Raises:
            EnvError: worker processes are requested, which could not share the device.
        """
        if config.workers:
            raise EnvError(
                f"{config.id}: env.workers is {config.workers}, expected 0: the device steps all copies in one call."
            )
        self.num_envs = num_envs
        self._task, self._config, self._seed = task, config, seed
        self._space = select_keys(task.observation_space, config)
        self._leaves = observation_leaves(self._space, config)
        self._action = action_of(task.action_space, label=config.id)
        self.spaces = Spaces(tuple(leaf.spec for leaf in self._leaves), tuple(self._action.specs))
        self.descriptions = describe_spaces(self._leaves, self._action)
        self._failed_starts = np.zeros(num_envs, int)  # consecutive episodes that failed at their first step
        self._noted = set[str]()  # observations whose bounds were reported
        self._begin = jax.jit(partial(_begin, task))
        self._advance = jax.jit(partial(_advance, task, config.action_repeat))
        self._restart = jax.jit(partial(_restart, task))
        self._draw = jax.jit(task.draw) if task.draw else None
        self._steps = 0
        self._ended = np.zeros(num_envs, bool)
        self._events: list[EnvEvent] = []
        self._at: Copy | None = None  # None: not reset yet

    def reset(self, seed: int | None = None) -> Rows:
        """See `VectorEnv.reset`."""
        if seed is not None:
            self._seed = seed
        self._steps = 0
        self._at, obs = self._begin(self._keys())
        rows = self._first_rows()
        self._check(rows, obs)
        self._ended = rows.is_last.copy()
        return rows

    def step(self, action: np.ndarray) -> Rows:
        """See `VectorEnv.step`."""
        expected = (self.num_envs, self.spaces.action_size)
        if action.shape != expected:
            raise ValueError(f"The actions have the shape {action.shape}, expected [num_envs, A] = {expected}.")
        self._steps += 1
        for index in np.flatnonzero(~np.isfinite(action).all(axis=1)):
            raise EnvError(self._message(int(index), f"the action is not finite: {action[index]}"))
        self._at, arrival = self._advance(self._at, np.stack(list(self._action.to_env(action))), self._ended)
        arrival = jax.device_get(arrival)
        rows = self._first_rows()._replace(
            prev_action=np.where(self._ended[:, None], 0, action).astype(np.float32),
            reward=np.array(arrival.reward, np.float32),
            is_first=self._ended.copy(),
            is_last=arrival.terminated | arrival.truncated,
            is_terminal=np.array(arrival.terminated),
        )
        self._check(rows, arrival.obs)
        for index in np.flatnonzero(rows.is_last if arrival.metrics else []):
            metrics = {name: float(values[index]) for name, values in arrival.metrics.items()}
            self._events.append(EnvEvent(int(index), metrics=metrics))
        self._ended = rows.is_last.copy()
        return rows

    def render(self) -> np.ndarray | None:
        """See `VectorEnv.render`."""
        draw, at = self._draw, self._at
        if draw is None or at is None:
            return None
        return render_frame(lambda: draw(jax.tree.map(lambda leaf: leaf[0], at.state)), self._config.id)

    def take_events(self) -> list[EnvEvent]:
        """See `VectorEnv.take_events`."""
        events, self._events = self._events, []
        return events

    def end_episodes(self, copies: np.ndarray) -> None:
        """See `VectorEnv.end_episodes`."""
        self._ended = self._ended | copies

    def state(self) -> bytes | None:
        """See `VectorEnv.state`."""
        leaves = jax.device_get(jax.tree.leaves(self._at))
        return pickle.dumps((self._config.id, self.num_envs, self._steps, self._ended, leaves))

    def load(self, state: bytes) -> None:
        """See `VectorEnv.load`."""
        try:
            env_id, num_envs, steps, ended, leaves = pickle.loads(state)
        except Exception as error:
            raise StateError(f"The saved state of {self._config.id} cannot be read: {error}") from error
        if (env_id, num_envs) != (self._config.id, self.num_envs):
            raise StateError(
                f"The saved state has {num_envs} copies of {env_id}, expected {self.num_envs} of {self._config.id}."
            )
        shapes, structure = jax.tree.flatten(jax.eval_shape(self._begin, self._keys())[0])
        if [leaf.shape for leaf in shapes] != [leaf.shape for leaf in leaves]:
            raise StateError(f"The saved state is from another version of {env_id}.")
        self._steps, self._ended = steps, ended
        self._at = jax.device_put(jax.tree.unflatten(structure, leaves))

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._at = None

    def _keys(self) -> PRNGKey:
        return jax.vmap(jax.random.PRNGKey)(np.array(copy_seeds(self._seed, self.num_envs), np.uint32))

    def _first_rows(self) -> Rows:
        return Rows(
            obs={spec.name: np.empty((self.num_envs, *spec.shape), spec.dtype) for spec in self.spaces.obs},
            prev_action=np.zeros((self.num_envs, self.spaces.action_size), np.float32),
            reward=np.zeros(self.num_envs, np.float32),
            is_first=np.ones(self.num_envs, bool),
            is_last=np.zeros(self.num_envs, bool),
            is_terminal=np.zeros(self.num_envs, bool),
        )

    def _check(self, rows: Rows, obs: Any) -> None:
        """Fills in the observations; environments with an invalid row raise an error or start a new episode."""
        bad = self._store_obs(rows, obs, range(self.num_envs))
        failed = np.isin(np.arange(self.num_envs), list(bad))
        self._failed_starts = np.where(rows.is_first, self._failed_starts, np.where(failed, self._failed_starts + 1, 0))
        for attempt in range(TRIES + 1):
            if not bad:
                return
            for index, what in bad.items():
                last_try = attempt == TRIES or self._failed_starts[index] >= TRIES
                if self._config.on_bad_observation == "stop" or last_try:
                    raise EnvError(self._message(index, what))
                self._events.append(EnvEvent(index, interrupted=self._message(index, what)))
            fresh = np.isin(np.arange(self.num_envs), list(bad))
            self._at, obs = self._restart(self._at, fresh)
            for array in (rows.prev_action, rows.reward, rows.is_last, rows.is_terminal):
                array[fresh] = 0
            rows.is_first[fresh] = True
            bad = self._store_obs(rows, obs, bad)

    def _store_obs(self, rows: Rows, obs: Any, indices: Iterable[int]) -> dict[int, str]:
        """Fills in the observations of some environments; returns the problems, by index."""
        values = list(flat_values(self._space, jax.device_get(obs)))
        bad = {}
        for index in indices:
            if not np.isfinite(rows.reward[index]):
                bad[index] = f"the reward is not finite: {rows.reward[index]}"
            for leaf, value in zip(self._leaves, values, strict=True):
                name = leaf.spec.name
                try:
                    converted = leaf.convert(value[index])
                except BadValueError as error:
                    bad[index] = f"the observation '{name}' {error}"
                    continue
                rows.obs[name][index] = converted.value
                if converted.outside:
                    self._note_outside(index, name, converted.outside)
        return bad

    def _note_outside(self, index: int, name: str, outside: str) -> None:
        self._events.append(EnvEvent(index, outside=True))
        if name not in self._noted:
            self._noted.add(name)
            note = self._message(index, outside_bounds_message(name, outside))
            self._events.append(EnvEvent(index, note=note, topic=f"bounds of {name}"))

    def _message(self, index: int, what: str) -> str:
        return f"{self._config.id}: {what} (copy {index}, step {self._steps})."


def _begin(task: JaxTask, keys: PRNGKey) -> tuple[Copy, Any]:
    """First states and observations of all environments."""
    after, now = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    states, obs = jax.vmap(task.reset)(now)
    return _typed(Copy(after, states)), obs


def _restart(task: JaxTask, at: Copy, fresh: Array) -> tuple[Copy, Any]:
    """Starts new episodes in the environments of the mask `fresh`; ignore the observations of the others."""
    begun, obs = _begin(task, at.key)
    return _choose(fresh, begun, at), obs


def _advance(task: JaxTask, repeat: int, at: Copy, action: Array, fresh: Array) -> tuple[Copy, Arrival]:
    """One step of all environments, each action repeated; those in the mask `fresh` start an episode instead."""
    after, now = jnp.moveaxis(jax.vmap(jax.random.split)(at.key), 1, 0)
    states, arrival = jax.vmap(task.step)(now, at.state, action)
    for turn in range(1, repeat):
        later_states, later = jax.vmap(task.step)(jax.vmap(jax.random.fold_in, (0, None))(now, turn), states, action)
        later = later._replace(reward=arrival.reward + later.reward)
        over = arrival.terminated | arrival.truncated
        states, arrival = _choose(over, (states, arrival), (later_states, later))
    stepped = (_typed(Copy(after, states)), arrival)

    def begin() -> tuple[Copy, Arrival]:
        begun, obs = _begin(task, at.key)
        nothing = jax.tree.map(jnp.zeros_like, arrival)._replace(obs=obs)
        return _choose(fresh, (begun, nothing), stepped)

    return jax.lax.cond(fresh.any(), begin, lambda: stepped)


def _typed(tree: Any) -> Any:
    """Removes weak types, so that the states of `reset` and of `step` have the same types."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), tree)


def _choose(mask: Array, chosen: Any, other: Any) -> Any:
    """Selects `chosen` where the mask is true, else `other`, for each environment; dtypes of `other`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(-1, *(1,) * (b.ndim - 1)), a.astype(b.dtype), b)

    return jax.tree.map(choose, chosen, other)
