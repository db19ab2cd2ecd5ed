"""The ring buffer: what windows may hold, how they are drawn, and going on after a restart."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dreamerjax.host.replay import Replay
from dreamerjax.types import ActionSpec, Batch, ObsSpec, Rows, Spaces

SPACES = Spaces(obs=(ObsSpec("state", (2,)), ObsSpec("time", (1,))), actions=(ActionSpec("continuous", 3),))


def numbered_rows(time: int, copies: int, spaces: Spaces = SPACES) -> Rows:
    """Rows in which every array tells the step and the copy that it came from."""
    copy = np.arange(copies)
    return Rows(
        obs={
            "state": np.stack([np.full(copies, time), copy], axis=-1).astype(np.float32),
            "time": np.full((copies, 1), time, np.float32),
        },
        prev_action=np.stack([copy, np.full(copies, time), -copy], axis=-1).astype(np.float32),
        reward=(time + copy / 100).astype(np.float32),
        is_first=(time + copy) % 5 == 0,
        is_last=(time + copy) % 5 == 4,
        is_terminal=(time + copy) % 10 == 4,
    )


def filled_replay(steps: int, *, copies: int = 1, capacity: int = 1000, seed: int = 0) -> Replay:
    replay = Replay(SPACES, copies=copies, capacity=capacity, seed=seed)
    for time in range(steps):
        replay.add(numbered_rows(time, copies))
    return replay


def assert_same(left: Batch, right: Batch) -> None:
    assert left.obs.keys() == right.obs.keys()
    for name in left.obs:
        np.testing.assert_array_equal(left.obs[name], right.obs[name])
    for name in ("prev_action", "reward", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@settings(max_examples=150, deadline=None)
@given(
    copies=st.integers(1, 4),
    slots=st.integers(1, 12),
    unused=st.integers(0, 3),
    steps=st.integers(1, 40),
    sequence_length=st.integers(1, 12),
)
def test_windows_are_consecutive_rows_of_one_copy_and_the_capacity_holds(copies, slots, unused, steps, sequence_length):
    capacity = slots * copies + unused % copies
    replay = filled_replay(steps, copies=copies, capacity=capacity)
    stored = min(steps, slots)
    assert len(replay) == stored * copies <= capacity
    assert replay.can_sample(sequence_length) == (sequence_length <= stored)
    if not replay.can_sample(sequence_length):
        with pytest.raises(ValueError, match=f"holds {stored} rows of each copy"):
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
    batch = filled_replay(20, copies=3).sample(batch_size=4, sequence_length=5, updates=2)
    shapes = {name: (array.shape, array.dtype) for name, array in vars(batch).items() if name != "obs"}
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
    known = filled_replay(0, copies=3).batch_shapes(batch_size=4, sequence_length=5, updates=2)
    drawn = filled_replay(20, copies=3).sample(batch_size=4, sequence_length=5, updates=2)
    assert known == jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), drawn)


@pytest.mark.parametrize("steps", [23, 30, 45], ids=["not yet full", "just full", "wrapped"])
def test_every_window_is_equally_likely(steps):
    copies, slots, sequence_length = 3, 30, 7
    replay = filled_replay(steps, copies=copies, capacity=slots * copies)
    batch = replay.sample(5000, sequence_length, 4)
    starts, copy = np.moveaxis(np.asarray(batch.obs["state"])[:, 0], -1, 0).astype(int).reshape(2, -1)
    stored = min(steps, slots)
    windows = (stored - sequence_length + 1) * copies
    counts = np.bincount((starts - (steps - stored)) * copies + copy, minlength=windows)
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


@pytest.mark.parametrize("steps", [0, 1, 17, 20, 20 + 13], ids=["empty", "one", "partly", "full", "wrapped"])
def test_going_on_after_a_restart_is_exact(steps):
    replay = filled_replay(steps, copies=2, capacity=40, seed=3)
    if steps:
        replay.sample(4, 1, 1)  # the generator has moved
    arrays, meta = replay.state()
    assert {len(array) for array in arrays.values()} == {min(steps, 20)}
    arrays = {name: array.copy() for name, array in arrays.items()}
    meta = json.loads(json.dumps(meta))

    restored = Replay(SPACES, copies=2, capacity=40, seed=99)
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
    arrays, meta = filled_replay(33, copies=2, capacity=40).state()
    restored = Replay(SPACES, copies=2, capacity=capacity, seed=0)
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
    ids=["copies", "length", "dtype", "extra", "missing"],
)
def test_a_replay_of_other_spaces_is_refused_and_nothing_changes(spoil):
    replay = filled_replay(5, copies=2)
    arrays, meta = filled_replay(9, copies=2).state()
    with pytest.raises(ValueError, match="The saved replay holds"):
        replay.load(spoil(arrays), meta)
    assert len(replay) == 10
    np.testing.assert_array_equal(np.asarray(replay.sample(1, 5, 1).obs["time"]).ravel(), np.arange(5))


@pytest.mark.parametrize("steps", [3, 8, 11], ids=["not yet full", "just full", "wrapped"])
def test_end_streams_ends_the_newest_rows_alone(steps):
    replay = filled_replay(steps, copies=2, capacity=16)
    stored = min(steps, 8)
    before = {name: array.copy() for name, array in replay.state()[0].items()}
    replay.end_streams()
    after = dict(replay.state()[0])
    newest = (steps - 1) % 8
    assert after["is_last"][newest].all()
    others = np.arange(stored) != newest
    np.testing.assert_array_equal(after.pop("is_last")[others], before.pop("is_last")[others])
    for name, array in after.items():  # is_terminal above all
        np.testing.assert_array_equal(array, before[name])


def test_end_streams_of_nothing():
    replay = filled_replay(0)
    replay.end_streams()
    replay.add(numbered_rows(0, 1))
    assert not replay.state()[0]["is_last"].any()


def test_images_are_stored_and_drawn_as_uint8():
    spaces = Spaces(obs=(ObsSpec("camera", (16, 32, 3)), *SPACES.obs), actions=SPACES.actions)
    shown = np.random.default_rng(0).integers(256, size=(12, 2, 16, 32, 3), dtype=np.uint8)  # [time, copies, ...]
    replay = Replay(spaces, copies=2, capacity=16, seed=0)
    for time in range(12):  # 8 stay
        rows = numbered_rows(time, 2)
        replay.add(rows._replace(obs=rows.obs | {"camera": shown[time]}))
    batch = replay.sample(5, 3, 2)
    time, copy = np.moveaxis(np.asarray(batch.obs["state"]), -1, 0).astype(int)
    assert batch.obs["camera"].dtype == np.uint8
    np.testing.assert_array_equal(batch.obs["camera"], shown[time, copy])
    assert replay.batch_shapes(5, 3, 2).obs["camera"] == jax.ShapeDtypeStruct((2, 3, 5, 16, 32, 3), np.uint8)

    arrays, meta = replay.state()
    restored = Replay(spaces, copies=2, capacity=16, seed=1)
    restored.load(arrays, meta)
    assert_same(restored.sample(5, 3, 2), replay.sample(5, 3, 2))


def test_a_capacity_below_one_row_of_each_copy_is_refused():
    with pytest.raises(ValueError, match="capacity is 3, expected at least one row of each of 4 copies"):
        Replay(SPACES, copies=4, capacity=3, seed=0)
