"""Saved replays: exact continuation, other capacities, other numbers of environments, and other spaces."""

import json

import chex
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamerjax.config import ConfigError
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.saving import regrouped
from dreamerjax.types import Batch, PolicyState, StoredLatent
from tests.replay.rows import (
    SPACES,
    WITH_LATENTS,
    assert_same,
    filled_replay,
    latent,
    make,
    numbered_rows,
)


@pytest.mark.parametrize("steps", [0, 1, 17, 20, 20 + 13], ids=["empty", "one", "partly", "full", "wrapped"])
def test_going_on_after_a_restart_is_exact(steps):
    replay = filled_replay(steps, num_envs=2, capacity=40, seed=3)
    if steps:
        replay.sample(4, 1, 1)  # the generator has moved
    arrays, meta = replay.state()
    assert {len(array) for array in arrays.values()} == {min(steps, 20)}
    arrays = {name: array.copy() for name, array in arrays.items()}
    meta = json.loads(json.dumps(meta))

    restored = make(SPACES, num_envs=2, capacity=40, seed=99)
    restored.load(arrays, meta)
    assert len(restored) == len(replay)
    for time in range(steps, steps + 50):
        for ring in (replay, restored):
            ring.add(numbered_rows(time, 2))
        length = 1 + time % 3
        if replay.can_sample(length):
            assert_same(replay.sample(4, length, 2), restored.sample(4, length, 2))


@pytest.mark.parametrize("capacity", [10, 26, 100])
def test_a_saved_replay_loads_into_another_capacity(capacity):
    arrays, meta = filled_replay(33, num_envs=2, capacity=40).state()
    restored = make(SPACES, num_envs=2, capacity=capacity, seed=0)
    restored.load(arrays, meta)
    kept = min(capacity // 2, 20)
    assert len(restored) == kept * 2
    restored.add(numbered_rows(33, 2))
    kept = min(capacity // 2, 21)
    times = np.asarray(restored.sample(300, kept, 1).obs["time"])[0, :, :, 0]
    np.testing.assert_array_equal(times, np.repeat(np.arange(34 - kept, 34)[:, None], 300, axis=1))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays | {"reward": arrays["reward"][:, :1]},
        lambda arrays: arrays | {"reward": arrays["reward"][:3]},
        lambda arrays: arrays | {"reward": arrays["reward"].astype(np.float64)},
        lambda arrays: arrays | {"obs.pixels": arrays["reward"]},
        lambda arrays: {name: array for name, array in arrays.items() if name != "obs.state"},
    ],
    ids=["num_envs", "length", "dtype", "extra", "missing"],
)
def test_a_replay_of_other_spaces_is_refused_and_nothing_changes(spoil):
    replay = filled_replay(5, num_envs=2)
    arrays, meta = filled_replay(9, num_envs=2).state()
    with pytest.raises(ValueError, match="The saved replay holds"):
        replay.load(spoil(arrays), meta)
    assert len(replay) == 10
    np.testing.assert_array_equal(np.asarray(replay.sample(1, 5, 1).obs["time"]).ravel(), np.arange(5))


@pytest.mark.parametrize("context", [False, True])
def test_going_on_after_a_restart_is_exact_with_latent_states_and_queue(context):
    def empty(seed: int) -> Replay:
        model = WITH_LATENTS if context else None
        return make(SPACES, num_envs=2, capacity=40, seed=seed, context=model, online=3)

    def step(replay: Replay, time: int) -> Batch | None:
        replay.add(numbered_rows(time, 2))
        replay.keep_latent(PolicyState(latent(time, 2), None))
        if not replay.can_sample(3):
            return None
        batch = replay.sample(2, 3, 2)
        if context:
            states = np.random.default_rng(time)
            replay.refresh(
                StoredLatent(
                    states.normal(size=(2, 3, 2, 6)).astype(ml_dtypes.bfloat16),
                    states.integers(1, 5, size=(2, 3, 2, 3)).astype(np.uint8),
                )
            )
        return batch

    replay, restored = empty(3), empty(4)
    for time in range(33):
        step(replay, time)
    arrays, meta = replay.state()
    restored.load({name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(meta)))
    for time in range(33, 70):
        one, other = step(replay, time), step(restored, time)
        assert one is not None
        assert other is not None
        assert_same(one, other)
        chex.assert_trees_all_equal(one.context, other.context)


@settings(max_examples=100, deadline=None)
@given(before=st.integers(1, 4), now=st.integers(1, 4), steps=st.integers(1, 30), slots=st.integers(6, 20))
def test_a_replay_of_another_number_of_copies_keeps_each_episode_together(before, now, steps, slots):
    old = make(SPACES, num_envs=before, capacity=slots * before, seed=0, context=WITH_LATENTS)
    for time in range(steps):
        old.add(numbered_rows(time, before))
    arrays, meta = regrouped(*old.state(), now)
    rows = min(steps, slots) * before // now
    new = make(SPACES, num_envs=now, capacity=1000, seed=0, context=WITH_LATENTS)
    new.load(arrays, meta)
    assert len(new) == rows * now
    kept = new.newest(rows)
    seen = [tuple(row) for row in kept.obs["state"].reshape(-1, 2)]
    stored = {(time, copy) for time in range(max(0, steps - slots), steps) for copy in range(before)}
    assert len(set(seen)) == len(seen)
    assert set(seen) <= stored
    assert len(stored) - len(seen) < now, "the oldest that are left over"
    for copy in range(now):
        for row in range(1, rows):
            (time, own), (earlier, other) = kept.obs["state"][row, copy], kept.obs["state"][row - 1, copy]
            follows = (time, own) == (earlier + 1, other)
            assert follows or (before != now and kept.is_first[row, copy] and kept.is_last[row - 1, copy])
            assert follows or not kept.prev_action[row, copy].any()


def test_images_in_files_stay_with_their_copies():
    replay = filled_replay(9, num_envs=2)
    arrays, meta = replay.state()
    with pytest.raises(ConfigError, match=r"env.num_envs is 3, expected 2 as before: with replay.storage disk"):
        regrouped(arrays, {**meta, "slots": 500}, 3)
