"""Compares dreams with a real episode under the same actions, as frames and plots."""

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.dream import open_loop
from dreamerjax.agent.policy import initial_policy_state
from dreamerjax.envs import VectorEnv
from dreamerjax.envs.frames import same_size
from dreamerjax.envs.single_env import single_env
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.training.evaluation import greedy_policy
from dreamerjax.types import Array, Batch
from dreamerjax.viz.renderer import ObservationRenderer

matplotlib.use("Agg")  # draw to files, without a display

TRUE, DREAMED = "0.25", "C1"
MAX_NAME = 40  # characters of an observation's name above its plot


class DreamComparison(NamedTuple):
    """One real episode, and dreams of its continuation under the same actions."""

    true: dict[str, np.ndarray]  # name -> [T, ...]
    dreamed: dict[str, np.ndarray]  # name -> [T, dreams, ...]; reconstructed in the first `context` rows
    context: int

    def __len__(self) -> int:
        return len(next(iter(self.true.values())))


def compare_dream_with_episode(
    loaded: LoadedAgent,
    *,
    context: int = 20,
    horizon: int = 40,
    dreams: int = 8,
    seed: int = 0,
    lent: VectorEnv | None = None,
) -> DreamComparison:
    """Acts with the agent for `context` steps, then at random, and dreams the random part from its actions.

    Args:
        loaded: an agent.
        context: rows that the agent observes before the dream starts.
        horizon: maximum steps to dream; fewer if the episode ends.
        dreams: number of dreams from the same state.
        seed: of the environment, the actions and the dreams.
        lent: environments to act in; None: creates one.

    Raises:
        EnvError: the environment fails.
    """
    agent, params = loaded.agent, loaded.state.params
    generator, policy = np.random.default_rng(seed), greedy_policy(agent)
    state, key = initial_policy_state(agent, 1), jax.random.PRNGKey(seed)
    with single_env(loaded.config.env, seed=seed, lent=lent) as env:
        rows = [env.reset(seed=seed)]
        while len(rows) < context + horizon and not rows[-1].is_last.any():
            state, action, key = policy(params, state, rows[-1].obs, rows[-1].is_first, key)
            random = len(rows) >= context
            rows.append(env.step(env.random_action(generator) if random else np.asarray(action)))
    length = len(rows)
    padded = rows + rows[-1:] * (
        context + horizon - length
    )  # to a fixed length, so that every episode uses one compiled program
    stacked = jax.tree.map(lambda *xs: np.repeat(np.stack(xs), dreams, axis=1), *padded)
    context = min(context, length - 1)
    dreamed = jax.device_get(_jit_open_loop(agent, context)(params, Batch(**stacked._asdict()), key))
    true = {name: np.stack([row.obs[name][0] for row in rows]) for name in rows[0].obs}
    return DreamComparison(true, {name: values[:length] for name, values in dreamed.items()}, context)


@functools.lru_cache(maxsize=4)
def _jit_open_loop(agent: Agent, context: int) -> Callable[..., dict[str, Array]]:
    """Compiled once per agent and context."""
    return jax.jit(lambda params, batch, key: open_loop(agent, params, batch, key, context=context))


def dream_frames(seen: DreamComparison, name: str) -> np.ndarray:
    """The real image, one dream and the error, side by side: [T, height, width, channels] uint8.

    The bar above the dream is dark while the agent observes and bright while it dreams.
    """
    true, dreamed = seen.true[name], seen.dreamed[name][:, 0]
    error = np.abs(true.astype(np.int16) - dreamed).astype(np.uint8)
    return _side_by_side([true, dreamed, error], seen.context)


def state_frames(seen: DreamComparison, renderer: ObservationRenderer) -> np.ndarray:
    """The real state and one dream, both rendered by the environment, side by side: [T, height, width, channels] uint8.

    Args:
        seen: what to draw.
        renderer: one whose `can_draw` is True.

    Raises:
        RenderError: the environment cannot draw one of the states.
    """
    one_dream = {name: values[:, 0] for name, values in seen.dreamed.items()}
    pictures = (
        _drawn(renderer, {name: values[t] for name, values in obs.items()})
        for obs in (seen.true, one_dream)
        for t in range(len(seen))
    )
    return _side_by_side(np.split(np.stack(list(same_size(pictures))), 2), seen.context)


def _drawn(renderer: ObservationRenderer, obs: dict[str, np.ndarray]) -> np.ndarray:
    picture = renderer.draw(obs)
    assert picture is not None, "can_draw is True"
    return picture


def _side_by_side(films: Sequence[np.ndarray], context: int) -> np.ndarray:
    """Films [T, height, width, channels] joined, with a bar that is bright above the second from row `context` on."""
    count, height, width, channels = films[0].shape
    gap = np.full((count, height, max(1, width // 32), channels), 128, np.uint8)
    frames = np.concatenate([part for film in films for part in (gap, film)][1:], axis=2)
    bar = np.full((count, max(2, height // 24), frames.shape[2], channels), 40, np.uint8)
    left = width + gap.shape[2]
    bar[context:, :, left : left + width] = 230
    return np.concatenate([bar, frames], axis=1)


def plot_dream(seen: DreamComparison, file: Path) -> None:
    """Plots the numbers of the vectors over time: the real episode and the dreams, which start after the context."""
    vectors = {name: values for name, values in seen.true.items() if values.ndim == 2}
    panels = [(name, i) for name, values in vectors.items() for i in range(values.shape[1])][:12]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9, 1.0 + 1.7 * rows), layout="constrained")
    for number, (name, index) in enumerate(panels):
        axes = figure.add_subplot(rows, 2, number + 1)
        axes.axvspan(0, seen.context - 1, color="0.93", label="observed" if number == 0 else None)
        time = np.arange(len(seen.true[name]))
        axes.plot(time, seen.dreamed[name][:, :, index], color=DREAMED, alpha=0.5, linewidth=0.8)
        axes.plot([], [], color=DREAMED, label=f"{seen.dreamed[name].shape[1]} dreams")
        axes.plot(time, seen.true[name][:, index], color=TRUE, linewidth=1.8, label="truth")
        shown = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
        axes.set_title(f"{shown}[{index}]", fontsize="small", loc="left", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        if number >= len(panels) - 2:
            axes.set_xlabel("environment step")
        if number == 0:
            axes.legend(frameon=False, fontsize="x-small", loc="upper right")
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a character that the font lacks
        figure.savefig(file, dpi=120)
