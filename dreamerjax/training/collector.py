"""The collector steps the environments with the policy and stores every row in the replay."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import initial_policy_state, jit_policy
from dreamerjax.envs import EnvError, EnvEvent, StateError, VectorEnv
from dreamerjax.replay.replay import Replay
from dreamerjax.types import Device, Params


class EpisodeStats(NamedTuple):
    """A finished episode."""

    ret: float  # sum of rewards
    length: int  # environment steps
    metrics: Mapping[str, float] = {}  # further numbers that the environment reports


class EpisodeCounter:
    """Adds up rewards and steps of every environment until its episode ends."""

    def __init__(self, num_envs: int) -> None:
        """All environments are at the start of an episode."""
        self.ret = np.zeros(num_envs, np.float64)
        self.length = np.zeros(num_envs, np.int64)

    def add(self, reward: np.ndarray, is_first: np.ndarray, is_last: np.ndarray) -> list[tuple[int, EpisodeStats]]:
        """Counts one row of each environment; returns (index, episode) for those that ended."""
        self.ret = np.where(is_first, 0.0, self.ret) + reward
        self.length = np.where(is_first, 0, self.length + 1)
        return self.now(is_last) if is_last.any() else []

    def now(self, copies: np.ndarray) -> list[tuple[int, EpisodeStats]]:
        """(index, episode so far) of the chosen environments [num_envs] bool."""
        return [(int(i), EpisodeStats(float(self.ret[i]), int(self.length[i]))) for i in np.flatnonzero(copies)]


class News(NamedTuple):
    """What happened in the environments, for people."""

    interruptions: list[str]  # why episodes were cut short, a sentence each
    notes: dict[str, str]  # topic -> a note that is printed once a run
    outside: int  # observations outside the bounds of their space


class Collector:
    """Steps the environments with the policy, or at random, and fills the replay.

    An environment step is one action taken; the first row of an episode does not count.
    """

    def __init__(
        self, agent: Agent, env: VectorEnv, replay: Replay, *, seed: int, device: Device | None = None
    ) -> None:
        """Resets the environments; the first step stores their first rows.

        Args:
            agent: whose policy acts.
            env: the environments.
            replay: where the rows go.
            seed: of the actions.
            device: where the policy runs; None: JAX's default. The parameters that `step` gets must be there.
        """
        self._env, self._replay, self._device = env, replay, device
        self._policy = jit_policy(agent)
        self._policy_state, self._key = jax.device_put(
            (initial_policy_state(agent, env.num_envs), jax.random.PRNGKey(seed)), device
        )
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._counter = EpisodeCounter(env.num_envs)
        self._news = News([], {}, 0)
        self._lent = False  # the environments have another use now
        self._rows = env.reset()
        self._stored = False  # not before the first step: a replay on the disk would lose rows that `load` needs
        self.env_steps = 0

    def store_first_rows(self) -> None:
        """Stores the rows of the first reset, unless they are stored or the run is resumed. `step` calls this, too."""
        if not self._stored:
            self._replay.add(self._rows)
            self._stored = True

    def compile_policy(self, params: Params) -> None:
        """Compiles the policy, by a step whose results are dropped."""
        rows = self._rows
        self._policy(params, self._policy_state, rows.obs, rows.is_first, self._key)

    def step(self, params: Params | None) -> list[EpisodeStats]:
        """Makes one step of all environments.

        Args:
            params: of the policy; None acts at random.

        Returns:
            The episodes that ended with it.
        """
        self.store_first_rows()
        if params is None:
            action = self._env.random_action(self._random)
        else:
            rows = self._rows
            self._policy_state, device_action, self._key = self._policy(
                params, self._policy_state, rows.obs, rows.is_first, self._key
            )
            action = np.asarray(device_action)
            self._replay.keep_latent(self._policy_state)
        self._rows = rows = self._env.step(action)
        self._replay.add(rows)
        self.env_steps += int(np.count_nonzero(~rows.is_first))
        ended = dict(self._counter.add(rows.reward, rows.is_first, rows.is_last))
        for event in self._env.take_events():
            self._hear(event)
            if event.metrics and event.copy in ended:
                ended[event.copy] = ended[event.copy]._replace(metrics=event.metrics)
        return list(ended.values())

    def take_news(self) -> News:
        """What happened since the last call."""
        news, self._news = self._news, News([], {}, 0)
        return news

    @contextlib.contextmanager
    def lent_env(self) -> Iterator[VectorEnv]:
        """Lends the environments for another use: all episodes end before it, as by a time limit, and new ones follow.

        What is saved meanwhile resumes with new episodes, too.
        """
        self._end_episodes()
        try:
            yield self._env
        except Exception:
            with contextlib.suppress(EnvError):  # it must not hide the first one
                self._begin_episodes()
            raise
        self._begin_episodes()

    def _end_episodes(self) -> None:
        self._replay.end_streams()
        self._lent = True

    def _begin_episodes(self) -> None:
        self._rows = self._env.reset(seed=int(self._random.integers(2**31)))
        self._replay.add(self._rows)
        self._stored = True
        self._lent = False
        for event in self._env.take_events():
            self._hear(event)

    def _hear(self, event: EnvEvent) -> None:
        if event.interrupted:
            self._news.interruptions.append(event.interrupted)
        if event.note:
            self._news.notes.setdefault(event.topic, event.note)
        self._news = self._news._replace(outside=self._news.outside + event.outside)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any], bytes]:
        """What `load` needs to continue exactly from here: arrays, a JSON-able dictionary, the environments' state."""
        leaves = jax.tree.leaves((self._policy_state, self._key))
        arrays = {f"policy{i}": _portable(np.asarray(leaf)) for i, leaf in enumerate(leaves)}
        rows = jax.tree.leaves(self._rows)
        arrays |= {f"rows{i}": leaf for i, leaf in enumerate(rows)}
        arrays |= {"return": self._counter.ret, "length": self._counter.length}
        meta = {"env_steps": self.env_steps, "random": self._random.bit_generator.state}
        return arrays, meta, b"" if self._lent else self._env.state() or b""

    def load(self, arrays: dict[str, np.ndarray], meta: dict[str, Any], env_state: bytes) -> str:
        """Takes over what `state` returned, after the replay was loaded.

        Environments whose state was not saved or cannot be loaded start new episodes; the stored ones end as by a time
        limit.

        Returns:
            Why the environments start new episodes; empty if they continue exactly where they were.
        """
        self.env_steps = meta["env_steps"]
        self._random.bit_generator.state = meta["random"]
        leaves, structure = jax.tree.flatten((self._policy_state, self._key))
        saved = (_without_blocks(arrays[f"policy{i}"], leaf.ndim) for i, leaf in enumerate(leaves))
        *latents, key = [array.astype(leaf.dtype) for array, leaf in zip(saved, leaves, strict=True)]
        as_many = [part.shape for part in latents] == [leaf.shape for leaf in leaves[:-1]]
        if not as_many:  # another number of environments: new episodes and latent states
            latents = leaves[:-1]
        self._policy_state, self._key = jax.tree.unflatten(structure, jax.device_put([*latents, key], self._device))
        problem = self._load_env(env_state)
        if problem:
            self._end_episodes()
            self._begin_episodes()
            return problem
        self._counter.ret, self._counter.length = arrays["return"].copy(), arrays["length"].copy()
        leaves, structure = jax.tree.flatten(self._rows)
        self._rows = jax.tree.unflatten(structure, [arrays[f"rows{i}"] for i in range(len(leaves))])
        self._stored = self._replay.rows_added > 0
        return ""

    def _load_env(self, env_state: bytes) -> str:
        """Why the environments cannot continue where they were; empty if they do."""
        if not env_state:
            return "the environments cannot be saved"
        try:
            self._env.load(env_state)
        except StateError as error:
            return str(error).rstrip(".")
        return ""


def _without_blocks(array: np.ndarray, rank: int) -> np.ndarray:
    """A recurrent state [B, D], also where an older checkpoint has it in blocks, [G, B, D/G]."""
    return np.moveaxis(array, 0, 1).reshape(array.shape[1], -1) if (array.ndim, rank) == (3, 2) else array


def _portable(array: np.ndarray) -> np.ndarray:
    """Widens bfloat16, which numpy files cannot store; narrowing it again is exact."""
    return array.astype(np.float32) if array.dtype == jax.numpy.bfloat16 else array
