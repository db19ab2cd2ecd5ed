"""Draws from a replay: what windows hold, how likely each is, and that looking changes nothing."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.replay.rows import (
    assert_same,
    filled_replay,
    numbered_rows,
)


@settings(max_examples=150, deadline=None)
@given(
    num_envs=st.integers(1, 4),
    slots=st.integers(1, 12),
    unused=st.integers(0, 3),
    steps=st.integers(1, 40),
    sequence_length=st.integers(1, 12),
)
def test_windows_are_consecutive_rows_of_one_copy_and_the_capacity_holds(
    num_envs, slots, unused, steps, sequence_length
):
    capacity = slots * num_envs + unused % num_envs
    replay = filled_replay(steps, num_envs=num_envs, capacity=capacity)
    stored = min(steps, slots)
    assert len(replay) == stored * num_envs <= capacity
    assert replay.can_sample(sequence_length) == (sequence_length <= stored)
    if not replay.can_sample(sequence_length):
        with pytest.raises(ValueError, match=f"holds {stored} rows of each environment"):
            replay.sample(2, sequence_length, 1)
        return

    batch = replay.sample(16, sequence_length, 2)
    time, copy = np.moveaxis(np.asarray(batch.obs["state"]), -1, 0).astype(int)  # [U, T, B] each
    assert time.shape == (2, sequence_length, 16)
    assert (np.diff(time, axis=1) == 1).all()  # no window runs over the write head
    assert (copy == copy[:, :1]).all()
    assert time.min() >= steps - stored  # overwritten rows are gone
    assert time.max() < steps
    # Every other array belongs to the same row.
    np.testing.assert_array_equal(batch.obs["time"], time[..., None])
    np.testing.assert_array_equal(batch.prev_action, np.stack([copy, time, -copy], axis=-1))
    np.testing.assert_array_equal(batch.reward, (time + copy / 100).astype(np.float32))
    np.testing.assert_array_equal(batch.is_first, (time + copy) % 5 == 0)
    np.testing.assert_array_equal(batch.is_last, (time + copy) % 5 == 4)
    np.testing.assert_array_equal(batch.is_terminal, (time + copy) % 10 == 4)


def test_shapes_and_dtypes():
    batch = filled_replay(20, num_envs=3).sample(batch_size=4, sequence_length=5, updates=2)
    shapes = {name: (array.shape, array.dtype) for name, array in vars(batch).items() if name not in ("obs", "context")}
    assert shapes == {
        "prev_action": ((2, 5, 4, 3), np.float32),
        "reward": ((2, 5, 4), np.float32),
        "is_first": ((2, 5, 4), np.bool_),
        "is_last": ((2, 5, 4), np.bool_),
        "is_terminal": ((2, 5, 4), np.bool_),
    }
    assert {name: (array.shape, array.dtype) for name, array in batch.obs.items()} == {
        "state": ((2, 5, 4, 2), np.float32),
        "time": ((2, 5, 4, 1), np.float32),
    }


def test_shapes_and_dtypes_are_known_before_anything_is_stored():
    known = filled_replay(0, num_envs=3).batch_shapes(batch_size=4, sequence_length=5, updates=2)
    drawn = filled_replay(20, num_envs=3).sample(batch_size=4, sequence_length=5, updates=2)
    assert known == jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), drawn)


@pytest.mark.parametrize("steps", [23, 30, 45], ids=["not yet full", "just full", "wrapped"])
def test_every_window_is_equally_likely(steps):
    num_envs, slots, sequence_length = 3, 30, 7
    replay = filled_replay(steps, num_envs=num_envs, capacity=slots * num_envs)
    batch = replay.sample(5000, sequence_length, 4)
    starts, copy = np.moveaxis(np.asarray(batch.obs["state"])[:, 0], -1, 0).astype(int).reshape(2, -1)
    stored = min(steps, slots)
    windows = (stored - sequence_length + 1) * num_envs
    counts = np.bincount((starts - (steps - stored)) * num_envs + copy, minlength=windows)
    assert len(counts) == windows
    assert stats.chisquare(counts).pvalue > 1e-4


def test_draws_are_independent():
    batch = filled_replay(1000).sample(500, 2, 4)
    starts = np.asarray(batch.obs["time"])[:, 0, :, 0]  # [U, B]
    correlation = np.corrcoef(starts)
    assert np.abs(correlation - np.eye(4)).max() < 0.2
    assert abs(np.corrcoef(starts[:, 1:].ravel(), starts[:, :-1].ravel())[0, 1]) < 0.1


def test_seed_decides_the_draws():
    first, same, other = (filled_replay(100, seed=seed).sample(8, 4, 1) for seed in (1, 1, 2))
    assert_same(first, same)
    assert not np.array_equal(first.reward, other.reward)


def test_a_batch_is_not_touched_by_later_rows():
    replay = filled_replay(8, capacity=8)
    batch = replay.sample(4, 8, 1)
    before = np.array(batch.reward)
    replay.add(numbered_rows(8, 1))
    np.testing.assert_array_equal(batch.reward, before)


@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 1000), (3, 30)])
def test_looking_changes_nothing_and_shows_what_is_there(num_envs, capacity):
    replay, other = (filled_replay(25, num_envs=num_envs, capacity=capacity) for _ in range(2))
    newest = replay.newest(7)
    assert newest.obs["time"][:, :, 0].tolist() == [[time] * num_envs for time in range(18, 25)]
    assert newest.obs["state"][0, :, 1].tolist() == list(range(num_envs))
    windows = replay.peek(50, 4, np.random.default_rng(0))
    assert windows.reward.shape == (4, 50)
    times = windows.obs["time"][..., 0]
    assert (np.diff(times, axis=0) == 1).all()
    assert times.min() == 25 - min(25, capacity // num_envs)  # the oldest row is among 50 windows
    assert (windows.obs["state"][..., 1] == windows.obs["state"][:1, :, 1]).all()  # one copy each
    chex.assert_trees_all_equal(replay.sample(2, 4, 3), other.sample(2, 4, 3))
