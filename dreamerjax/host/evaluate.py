"""Evaluation: whole episodes with greedy actions, in environments of their own."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import Policy, initial_policy_state, jit_policy
from dreamerjax.config import EnvConfig
from dreamerjax.host.collector import Episode, EpisodeCounter
from dreamerjax.host.envs import EnvError, VectorEnv, make_env
from dreamerjax.types import Params, PRNGKey

MOST_INTERRUPTIONS = 5  # for each episode that is wanted


def greedy_policy(agent: Agent) -> Policy:
    """The compiled policy that takes the most likely action."""
    return jit_policy(agent, greedy=True)


class Evaluation(NamedTuple):
    """Statistics over the episodes of one evaluation."""

    episodes: int
    return_mean: float
    return_std: float
    return_min: float
    return_max: float
    length_mean: float


def summarise(episodes: Sequence[Episode]) -> Evaluation:
    """The statistics of whole episodes."""
    returns = np.array([episode.ret for episode in episodes])
    return Evaluation(
        episodes=len(episodes),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_min=float(returns.min()),
        return_max=float(returns.max()),
        length_mean=float(np.mean([episode.length for episode in episodes])),
    )


def play_episodes(
    env: VectorEnv,
    policy: Callable[..., tuple[Any, Any, PRNGKey]],
    state: Any,
    key: PRNGKey,
    quota: np.ndarray,
    *,
    seed: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[list[Episode]] | None:
    """Plays whole episodes from fresh starts, a fixed number in each copy.

    So short episodes do not count more often than long ones.

    Args:
        env: of all copies.
        policy: (policy state, obs, is_first, key) -> (policy state, action [copies, A], next key).
        state: of the policy, before the first step.
        key: of the policy; consumed.
        quota: [copies] episodes that are wanted of each; used up.
        seed: of the starts.
        interrupted: asked at each step; True ends it.

    Returns:
        The episodes of each copy, or None if it was interrupted.

    Raises:
        EnvError: the environment misbehaves, or hardly ever ends an episode.
    """
    wanted, finished = int(quota.sum()), [list[Episode]() for _ in quota]
    counter, cut_short = EpisodeCounter(len(quota)), []
    rows = env.reset(seed=seed)
    while quota.any():
        if interrupted():
            return None
        state, action, key = policy(state, rows.obs, rows.is_first, key)
        rows = env.step(np.asarray(action))
        cut_short += [event.interrupted for event in env.take_events() if event.interrupted]
        if len(cut_short) > MOST_INTERRUPTIONS * wanted:
            of = f"{len(cut_short)} of {len(cut_short) + sum(map(len, finished))}"
            raise EnvError(f"Episodes to evaluate, {of}, were cut short. The last: {cut_short[-1]}")
        for copy, episode in counter.add(rows.reward, rows.is_first, rows.is_last):
            if quota[copy]:
                quota[copy] -= 1
                finished[copy].append(episode)
    return finished


class Evaluator:
    """Runs greedy episodes in up to `copies` environments at a time, made once at the first evaluation."""

    def __init__(self, agent: Agent, config: EnvConfig, *, copies: int) -> None:
        """Prepares, but makes no environment yet."""
        self._agent, self._config, self.copies = agent, config, copies
        self._env = None
        self._policy = greedy_policy(agent)

    def run(
        self, params: Params, *, episodes: int, seed: int, interrupted: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Plays `episodes` whole episodes from fresh starts; every copy plays its fixed share of them.

        Args:
            params: of the policy.
            episodes: how many.
            seed: of the starts and of the latent samples.
            interrupted: asked at each step; True ends the evaluation.

        Returns:
            The statistics, or None if it was interrupted.

        Raises:
            EnvError: the environment misbehaves, or hardly ever ends an episode.
        """
        if self._env is None:
            self._env = make_env(self._config, copies=self.copies, seed=seed)
        quota = np.array([len(share) for share in np.array_split(np.arange(episodes), self.copies)])
        state, key = initial_policy_state(self._agent, self.copies), jax.random.PRNGKey(seed)
        policy = functools.partial(self._policy, params)
        finished = play_episodes(self._env, policy, state, key, quota, seed=seed, interrupted=interrupted)
        return None if finished is None else summarise([episode for copy in finished for episode in copy])

    def close(self) -> None:
        """Frees the environments."""
        if self._env is not None:
            self._env.close()
            self._env = None
