"""Rows in which every number tells where it belongs, and replays of such rows."""

from typing import Any

import ml_dtypes
import numpy as np

from dreamerjax.config import ModelConfig
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.ring import Ring
from dreamerjax.types import ActionSpec, Batch, LatentState, ObsSpec, PolicyState, Rows, Spaces, StoredLatent

SPACES = Spaces(obs=(ObsSpec("state", (2,)), ObsSpec("time", (1,))), actions=(ActionSpec("continuous", 3),))


WITH_LATENTS = ModelConfig(deter=6, groups=3, classes=4, blocks=2)


def make(spaces: Spaces = SPACES, *, num_envs: int = 1, capacity: int = 1000, **options: Any) -> Replay:
    """An empty replay in memory, with seed 0 unless `options` has another."""
    return Replay(Ring(spaces, num_envs=num_envs, capacity=capacity), **({"seed": 0} | options))


def numbered_rows(time: int, num_envs: int, spaces: Spaces = SPACES) -> Rows:
    """Rows in which every array tells the step and the copy that it came from."""
    copy = np.arange(num_envs)
    return Rows(
        obs={
            "state": np.stack([np.full(num_envs, time), copy], axis=-1).astype(np.float32),
            "time": np.full((num_envs, 1), time, np.float32),
        },
        prev_action=np.stack([copy, np.full(num_envs, time), -copy], axis=-1).astype(np.float32),
        reward=(time + copy / 100).astype(np.float32),
        is_first=(time + copy) % 5 == 0,
        is_last=(time + copy) % 5 == 4,
        is_terminal=(time + copy) % 10 == 4,
    )


def filled_replay(steps: int, *, num_envs: int = 1, capacity: int = 1000, seed: int = 0) -> Replay:
    replay = make(SPACES, num_envs=num_envs, capacity=capacity, seed=seed)
    for time in range(steps):
        replay.add(numbered_rows(time, num_envs))
    return replay


def assert_same(left: Batch, right: Batch) -> None:
    assert left.obs.keys() == right.obs.keys()
    for name in left.obs:
        np.testing.assert_array_equal(left.obs[name], right.obs[name])
    for name in ("prev_action", "reward", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def numbers(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(step, copy) of every row, [U, T, B] each."""
    step, copy = np.moveaxis(np.asarray(batch.obs["state"]), -1, 0).astype(int)
    return step, copy


def latent(time: int, num_envs: int) -> LatentState:
    """A latent state of D=6 units and S=3 groups of K=4 classes in which every number encodes step, copy and place."""
    deter = time + np.arange(num_envs)[:, None] / 4 + 100 * (np.arange(6) // 3)
    stoch = np.eye(4)[(time + np.arange(num_envs)[:, None] + np.arange(3)) % 4]
    return LatentState(deter=np.float32(deter), stoch=np.float32(stoch))


def replay_with_latents(steps: int, *, num_envs: int = 2, capacity: int = 40, online: int = 0) -> Replay:
    """Each row keeps the latent state of its own number."""
    replay = make(SPACES, num_envs=num_envs, capacity=capacity, seed=3, context=WITH_LATENTS, online=online)
    for time in range(steps):
        replay.add(numbered_rows(time, num_envs))
        replay.keep_latent(PolicyState(latent(time, num_envs), None))
    return replay


def expected_context(batch: Batch) -> StoredLatent:
    step, copy = (number[:, 0] for number in numbers(batch))  # [U, B]
    before = step - 1
    deter = before[..., None] + copy[..., None] / 4 + np.repeat([0.0, 100.0], 3)
    return StoredLatent(
        deter=deter.astype(ml_dtypes.bfloat16), stoch=1 + (before[..., None] + copy[..., None] + np.arange(3)) % 4
    )
