"""Where a dream can begin: any moment of an episode that the run has replayed, or that the agent plays for it."""

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

MOST = 8  # episodes that are offered
LONGEST = 500  # rows of each
NEWEST = 20_000  # rows of the replay that are looked at


class Episode(NamedTuple):
    """Rows to begin from."""

    title: str
    rows: Rows  # [T, 1, ...], from the first row of the episode on
    seed: int | None  # of the environment that gave them; None: nobody knows


def episodes_of(dreamer: Dreamer) -> list[Episode]:
    """Episodes of the run's replay, newest first; for an agent without a replay, some that it plays now."""
    replayed = list(itertools.islice(_replayed(dreamer), MOST))
    if replayed:
        return replayed
    try:
        return list(_played(dreamer))
    except EnvError:  # not installed: dreams begin from nothing
        return []


def _replayed(dreamer: Dreamer) -> Iterator[Episode]:
    loaded = dreamer.loaded
    arrays, host = checkpoint.read_arrays(RunFolder(loaded.run_dir).checkpoints, step=loaded.env_steps)
    arrays = checkpoint.unprefixed(arrays, "replay.")
    rows = saved_rows(arrays, host.get("replay", {}), NEWEST)
    if rows is None:
        return
    for copy in range(rows.reward.shape[1]):
        firsts = np.flatnonzero(rows.is_first[:, copy])
        for first, last in reversed(list(zip(firsts, [*firsts[1:], len(rows.reward)], strict=True))):
            part = slice(first, min(last, first + LONGEST))
            own = jax.tree.map(lambda x, part=part, copy=copy: x[part, copy : copy + 1], rows)
            if len(own.reward) > 1:
                yield Episode(f"replay: return {own.reward.sum():.0f}, {len(own.reward) - 1} steps", own, None)


def _played(dreamer: Dreamer) -> Iterator[Episode]:
    for policy, seed in itertools.product(("greedy", "random"), (101, 102, 103)):
        played = dreamer.play(policy=policy, seed=seed, steps=LONGEST)
        who = "the agent" if policy == "greedy" else "random actions"
        yield Episode(f"{who}: return {played.ret:.0f}, {len(played) - 1} steps", played.rows, seed)
