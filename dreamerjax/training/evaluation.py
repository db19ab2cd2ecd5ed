"""Evaluation: whole episodes with greedy actions, in separate environments."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import Policy, initial_policy_state, jit_policy
from dreamerjax.config import EnvConfig, EvalConfig
from dreamerjax.envs import EnvError, EnvEvent, VectorEnv, make_env
from dreamerjax.training.collector import EpisodeCounter, EpisodeStats
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
    episodes_cut: int = 0  # of them, those that were ended after `eval.max_episode_steps`


class Onlooker:
    """Callbacks of an evaluation; these do nothing."""

    def interrupted(self) -> bool:
        """Whether the evaluation must end now; called at each step."""
        return False

    def progress(self, finished: int, wanted: int, steps: int) -> None:
        """Called at each step: how many of the wanted episodes have ended, after how many steps of each environment."""

    def event(self, event: EnvEvent) -> None:
        """Something happened in the environments."""


class Finished(NamedTuple):
    """The episodes of an evaluation."""

    by_copy: list[list[EpisodeStats]]
    cut: int  # of them, those that were ended because they were too long

    @property
    def episodes(self) -> list[EpisodeStats]:
        """All of them."""
        return [episode for copy in self.by_copy for episode in copy]


def summarise(episodes: Sequence[EpisodeStats], *, cut: int = 0) -> Evaluation:
    """The statistics of whole episodes, `cut` of which were ended because they were too long."""
    returns = np.array([episode.ret for episode in episodes])
    return Evaluation(
        episodes=len(episodes),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_min=float(returns.min()),
        return_max=float(returns.max()),
        length_mean=float(np.mean([episode.length for episode in episodes])),
        episodes_cut=cut,
    )


def cut_sentence(evaluation: Evaluation, max_episode_steps: int) -> str:
    """A sentence about episodes that were cut; empty if none was."""
    if not evaluation.episodes_cut:
        return ""
    return (
        f"Of {evaluation.episodes} episodes of the evaluation, {evaluation.episodes_cut} did not end within "
        f"{max_episode_steps:,} steps and were cut there: their returns count up to then (--eval.max-episode-steps)."
    )


def play_episodes(
    env: VectorEnv,
    policy: Callable[..., tuple[Any, Any, PRNGKey]],
    state: Any,
    key: PRNGKey,
    quota: np.ndarray,
    *,
    seed: int,
    max_episode_steps: int,
    onlooker: Onlooker | None = None,
) -> Finished | None:
    """Plays whole episodes from new starts, a fixed number in each environment.

    The fixed number avoids a bias towards short episodes.

    Args:
        env: the environments.
        policy: (policy state, obs, is_first, key) -> (policy state, action [num_envs, A], next key).
        state: of the policy, before the first step.
        key: of the policy; consumed.
        quota: [num_envs] episodes to play in each; decremented.
        seed: of the starts.
        max_episode_steps: a longer episode is cut there, and counts.
        onlooker: callbacks.

    Returns:
        The episodes, or None if the onlooker interrupted.

    Raises:
        EnvError: the environment fails, or most episodes are interrupted.
    """
    onlooker = onlooker or Onlooker()
    wanted, finished, cut, steps = int(quota.sum()), [list[EpisodeStats]() for _ in quota], 0, 0
    counter, cut_short = EpisodeCounter(len(quota)), []
    rows = env.reset(seed=seed)
    while quota.any():
        if onlooker.interrupted():
            return None
        onlooker.progress(wanted - int(quota.sum()), wanted, steps)
        state, action, key = policy(state, rows.obs, rows.is_first, key)
        rows, steps = env.step(np.asarray(action)), steps + 1
        for event in env.take_events():
            onlooker.event(event)
            if event.interrupted:
                cut_short.append(event.interrupted)
        if len(cut_short) > MOST_INTERRUPTIONS * wanted:
            of = f"{len(cut_short)} of {len(cut_short) + sum(map(len, finished))}"
            raise EnvError(f"Episodes to evaluate, {of}, were cut short. The last: {cut_short[-1]}")
        ended = counter.add(rows.reward, rows.is_first, rows.is_last)
        too_long = ~rows.is_last & (counter.length >= max_episode_steps)
        if too_long.any():
            env.end_episodes(too_long)
            ended += counter.now(too_long)
        for copy, episode in ended:
            if quota[copy]:
                quota[copy] -= 1
                cut += int(too_long[copy])
                finished[copy].append(episode)
    return Finished(finished, cut)


class Evaluator:
    """Runs greedy episodes in `num_envs` environments, which are made at the first evaluation."""

    def __init__(
        self,
        agent: Agent,
        config: EnvConfig,
        *,
        num_envs: int,
        max_episode_steps: int = EvalConfig.max_episode_steps,
        env: VectorEnv | None = None,
    ) -> None:
        """Makes no environment yet.

        Args:
            agent: the static parts.
            config: of the environment.
            num_envs: environments that are stepped together.
            max_episode_steps: longer episodes are cut.
            env: play in these environments instead; the caller closes them.
        """
        self._agent, self._config, self._max_episode_steps = agent, config, max_episode_steps
        self._lent, self._own = env, None
        self.num_envs = env.num_envs if env is not None else num_envs
        self._policy = greedy_policy(agent)

    def run(self, params: Params, *, episodes: int, seed: int, onlooker: Onlooker | None = None) -> Evaluation | None:
        """Plays whole episodes from new starts; every environment plays a fixed share of them.

        Args:
            params: of the policy.
            episodes: how many.
            seed: of the starts and of the latent samples.
            onlooker: callbacks.

        Returns:
            The statistics, or None if the onlooker interrupted.

        Raises:
            EnvError: the environment cannot be made or fails, or most episodes are interrupted.
        """
        env = self._lent or self._made(seed)
        quota = np.array([len(share) for share in np.array_split(np.arange(episodes), self.num_envs)])
        state, key = initial_policy_state(self._agent, self.num_envs), jax.random.PRNGKey(seed)
        policy = functools.partial(self._policy, params)
        limit = self._max_episode_steps
        finished = play_episodes(env, policy, state, key, quota, seed=seed, max_episode_steps=limit, onlooker=onlooker)
        return None if finished is None else summarise(finished.episodes, cut=finished.cut)

    def close(self) -> None:
        """Closes the environments that it made."""
        if self._own is not None:
            self._own.close()
            self._own = None

    def _made(self, seed: int) -> VectorEnv:
        if self._own is None:
            try:
                self._own = make_env(self._config, num_envs=self.num_envs, seed=seed)
            except EnvError as error:
                raise EnvError(
                    f"{error}\nEvaluations have environments of their own; these {self.num_envs} could not be made. "
                    "Where there can be only one (a port, a licence, a robot), --eval.in-training-env evaluates in the "
                    "one that trains; where there can be a few, --eval.num-envs says how many."
                ) from error
        return self._own
