"""Open-loop predictions: measures how long dreams stay accurate, against real episodes with the same actions.

A stretch is a part of a real episode. The agent observes its first `context` rows and dreams the rest.
"""

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
    """N stretches of real episodes after the context, and dreams of them."""

    rows: Rows  # [H, N, ...] the real rows after the context
    dreams: Sequence[Dream]  # each [H, N, ...]
    known: np.ndarray  # [H, N] bool: the episode had not ended before

    def expected(self, name: str) -> np.ndarray:
        """The median of an observation over the dreams, [H, N, ...]."""
        return np.median([dream.obs[name] for dream in self.dreams], axis=0)

    def error(self, name: str) -> np.ndarray:
        """Absolute error of the median dream, [H, N, ...]; NaN after the end of the episode."""
        difference = np.abs(self.expected(name) - self.rows.obs[name])
        return np.where(self.known.reshape(*self.known.shape, *[1] * (difference.ndim - 2)), difference, np.nan)

    @property
    def survival(self) -> np.ndarray:
        """Probability that the dreamed episode has not ended, [H, N]."""
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
    """Compares dreams with real episodes.

    Args:
        dreamer: the agent.
        acting: the policy of the real episodes, during and after the context.
        context: rows that the agent observes before it dreams; 1: only the first row of the episode.
        horizon: H, steps of the dreams.
        starts: N, stretches before those are removed whose episode ends within the context.
        copies: dreams of each stretch; each encodes the context again, with other samples of the latent states.
        seed: of the environment, the actions and the dreams.

    Raises:
        EnvError: the environment is not installed, or fails.
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
    # The row of a reset has no action, but a dream that continues needs one: the previous action.
    before = np.roll(followed.prev_action, 1, axis=0)
    actions = np.where(followed.is_first[..., None], before, followed.prev_action)
    dreams = []
    for copy in range(copies):
        start = dreamer.encode(seen, seed=seed + copy).states[context - 1]
        dreams.append(dreamer.dream(start, actions=actions, seed=seed + copy))
    return OpenLoopComparison(followed, dreams, np.cumprod(~followed.is_first, axis=0).astype(bool))


def trusted_steps(error: np.ndarray, tolerance: float) -> np.ndarray:
    """Number of first steps with an error [H, N] within a tolerance, [N]; NaN, after an episode's end, is within."""
    return np.cumprod(~(error > tolerance), axis=0).sum(0)


def end_error(compared: OpenLoopComparison, over: np.ndarray | None = None) -> np.ndarray:
    """Number of steps by which dreams end too late (negative: too early), [episodes that ended].

    Includes only stretches that end by termination, not by a time limit.

    Args:
        compared: the real rows and the dreams.
        over: [H, N] bool, whether the dream has ended; None: where the continue head's survival is below one half.
    """
    ends, over = compared.rows.is_terminal & compared.known, compared.survival < 0.5 if over is None else over
    dreamed = np.where(over.any(0), over.argmax(0), len(over))
    return (dreamed - ends.argmax(0))[ends.any(0)]
