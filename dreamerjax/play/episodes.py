"""The episodes from which a dream can start: stored in the run's replay buffer, or played by the agent."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from dreamerjax.envs import EnvError
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.replay.saving import saved_rows
from dreamerjax.runs import checkpoint
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.types import Rows

MAX_EPISODES = 8  # offered in the page
MAX_ROWS = 500  # per episode
NEWEST = 20_000  # newest rows of the replay buffer that are searched


class StartEpisode(NamedTuple):
    """An episode from which a dream can start."""

    title: str
    rows: Rows  # [T, 1, ...], from the episode's first row
    seed: int | None  # of the environment's reset; None: unknown


def start_episodes(dreamer: Dreamer) -> list[StartEpisode]:
    """Episodes of the run's replay buffer, newest first; without a replay buffer, episodes that are played now."""
    replayed = list(itertools.islice(_replayed(dreamer), MAX_EPISODES))
    if replayed:
        return replayed
    try:
        return list(_played(dreamer))
    except EnvError:  # not installed: dreams start from the initial latent state
        return []


def _replayed(dreamer: Dreamer) -> Iterator[StartEpisode]:
    loaded = dreamer.loaded
    arrays, host = checkpoint.read_arrays(RunFolder(loaded.run_dir).checkpoints, step=loaded.env_steps)
    arrays = checkpoint.unprefixed(arrays, "replay.")
    rows = saved_rows(arrays, host.get("replay", {}), NEWEST)
    if rows is None:
        return
    for copy in range(rows.reward.shape[1]):
        firsts = np.flatnonzero(rows.is_first[:, copy])
        for first, last in reversed(list(zip(firsts, [*firsts[1:], len(rows.reward)], strict=True))):
            part = slice(first, min(last, first + MAX_ROWS))
            own = jax.tree.map(lambda x, part=part, copy=copy: x[part, copy : copy + 1], rows)
            if len(own.reward) > 1:
                yield StartEpisode(f"replay: return {own.reward.sum():.0f}, {len(own.reward) - 1} steps", own, None)


def _played(dreamer: Dreamer) -> Iterator[StartEpisode]:
    for policy, seed in itertools.product(("greedy", "random"), (101, 102, 103)):
        played = dreamer.play(policy=policy, seed=seed, steps=MAX_ROWS)
        who = "the agent" if policy == "greedy" else "random actions"
        yield StartEpisode(f"{who}: return {played.ret:.0f}, {len(played) - 1} steps", played.rows, seed)
