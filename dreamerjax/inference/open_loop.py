"""How far ahead a dream can be trusted: many dreams beside what really happened under the same actions."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from dreamerjax.agent.dream import Dream
from dreamerjax.agent.policy import initial_policy_state, jit_policy
from dreamerjax.envs import make_env
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.types import Rows


class OpenLoopComparison(NamedTuple):
    """N stretches of real episodes, and dreams of the same from a moment on."""

    rows: Rows  # [H, N, ...] what really happened after the moment
    dreams: Sequence[Dream]  # each [H, N, ...] what was dreamed
    known: np.ndarray  # [H, N] bool: the episode had not ended before

    def expected(self, name: str) -> np.ndarray:
        """The median of an observation in the dreams, [H, N, ...]."""
        return np.median([dream.obs[name] for dream in self.dreams], axis=0)

    def error(self, name: str) -> np.ndarray:
        """Absolute difference of the median dream from the truth [H, N, ...]; NaN where the episode had ended."""
        difference = np.abs(self.expected(name) - self.rows.obs[name])
        return np.where(self.known.reshape(*self.known.shape, *[1] * (difference.ndim - 2)), difference, np.nan)

    @property
    def survival(self) -> np.ndarray:
        """Probability that the dreamed episode still goes on, [H, N]."""
        return np.mean([np.cumprod(dream.cont, axis=0) for dream in self.dreams], axis=0)


def compare_open_loop(
    dreamer: Dreamer,
    *,
    acting: Literal["greedy", "sample", "random"] = "sample",
    context: int = 20,
    horizon: int = 40,
    starts: int = 200,
    copies: int = 8,
    seed: int = 0,
) -> OpenLoopComparison:
    """Dreams beside the truth.

    Args:
        dreamer: the agent.
        acting: who acts, before the moment and after it.
        context: rows that the agent sees before it shuts its eyes; 1: the first row alone.
        horizon: H, steps that it dreams.
        starts: N, stretches; those whose episode ends within the context are left out.
        copies: dreams of each; in each the agent sees the rows anew, so that what it is unsure of differs.
        seed: of the environment, the actions and the dreams.

    Raises:
        EnvError: the environment is not installed, or misbehaves.
    """
    agent, params = dreamer.loaded.agent, dreamer.loaded.state.params
    config = dataclasses.replace(dreamer.config.env, workers=0)
    env, generator = make_env(config, num_envs=starts, seed=seed), np.random.default_rng(seed)
    state, key = initial_policy_state(agent, starts), jax.random.PRNGKey(seed)
    policy = None if acting == "random" else jit_policy(agent, greedy=acting == "greedy")
    rows = [env.reset()]
    while len(rows) < context + horizon:
        if policy is None:
            action = env.random_action(generator)
        else:
            state, action, key = policy(params, state, rows[-1].obs, rows[-1].is_first, key)
        rows.append(env.step(np.asarray(action)))
    env.close()
    lasted = ~np.any([row.is_last for row in rows[:context]], axis=0)
    stacked: Rows = jax.tree.map(lambda *xs: np.stack(xs)[:, lasted], *rows)
    seen, followed = jax.tree.map(lambda x: x[:context], stacked), jax.tree.map(lambda x: x[context:], stacked)
    # Nothing is done in the row of a reset. A dream that goes on needs an action there: the one before.
    before = np.roll(followed.prev_action, 1, axis=0)
    actions = np.where(followed.is_first[..., None], before, followed.prev_action)
    dreams = []
    for copy in range(copies):
        start = dreamer.encode(seen, seed=seed + copy).states[context - 1]
        dreams.append(dreamer.dream(start, actions=actions, seed=seed + copy))
    return OpenLoopComparison(followed, dreams, np.cumprod(~followed.is_first, axis=0).astype(bool))


def trusted_steps(error: np.ndarray, tolerance: float) -> np.ndarray:
    """For how many steps an error [H, N] stays within a tolerance, [N]; NaN, after the end of an episode, is within."""
    return np.cumprod(~(error > tolerance), axis=0).sum(0)


def end_error(compared: OpenLoopComparison, over: np.ndarray | None = None) -> np.ndarray:
    """By how many steps the end of an episode was dreamed too late (or too early: negative), [ended episodes].

    Only stretches that really end because the task does count.

    Args:
        compared: the dreams beside the truth.
        over: [H, N] bool, whether the dream has ended; None: where the continue head finds that more likely than not.
    """
    ends, over = compared.rows.is_terminal & compared.known, compared.survival < 0.5 if over is None else over
    dreamed = np.where(over.any(0), over.argmax(0), len(over))
    return (dreamed - ends.argmax(0))[ends.any(0)]
