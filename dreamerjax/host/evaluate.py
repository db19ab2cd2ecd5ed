"""Evaluation: whole episodes with greedy actions, in environments of their own."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import Policy, initial_policy_state, jit_policy
from dreamerjax.config import EnvConfig
from dreamerjax.host.collector import EpisodeCounter
from dreamerjax.host.envs import EnvError, make_env
from dreamerjax.types import Params

MOST_INTERRUPTIONS = 5  # for each episode that is wanted


@functools.lru_cache(maxsize=4)
def greedy_policy(agent: Agent) -> Policy:
    """The compiled policy that takes the most likely action; the same one whenever the same agent asks."""
    return jit_policy(agent, greedy=True)


class Evaluation(NamedTuple):
    """Statistics over the episodes of one evaluation."""

    episodes: int
    return_mean: float
    return_std: float
    return_min: float
    return_max: float
    length_mean: float


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
        """Plays `episodes` whole episodes from fresh starts.

        Every copy plays its fixed share of the episodes, so that short episodes do not count more often than long ones.

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
        counter, finished, cut_short = EpisodeCounter(self.copies), [], []
        rows = self._env.reset(seed=seed)
        while quota.any():
            if interrupted():
                return None
            state, action, key = self._policy(params, state, rows.obs, rows.is_first, key)
            rows = self._env.step(np.asarray(action))
            cut_short += [event.interrupted for event in self._env.take_events() if event.interrupted]
            if len(cut_short) > MOST_INTERRUPTIONS * episodes:
                of = f"{len(cut_short)} of {len(cut_short) + len(finished)}"
                raise EnvError(f"Episodes to evaluate, {of}, were cut short. The last: {cut_short[-1]}")
            for copy, episode in counter.add(rows.reward, rows.is_first, rows.is_last):
                if quota[copy]:
                    quota[copy] -= 1
                    finished.append(episode)
        returns = np.array([episode.ret for episode in finished])
        lengths = [episode.length for episode in finished]
        return Evaluation(
            episodes=episodes,
            return_mean=float(returns.mean()),
            return_std=float(returns.std()),
            return_min=float(returns.min()),
            return_max=float(returns.max()),
            length_mean=float(np.mean(lengths)),
        )

    def close(self) -> None:
        """Frees the environments."""
        if self._env is not None:
            self._env.close()
            self._env = None
