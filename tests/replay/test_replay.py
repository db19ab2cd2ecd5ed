"""The ring buffer: what windows may hold, how they are drawn, and going on after a restart."""

import json

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dreamerjax.config import ConfigError, ModelConfig
from dreamerjax.replay.replay import Replay, regrouped
from dreamerjax.types import ActionSpec, Batch, LatentState, ObsSpec, PolicyState, Rows, Spaces, StoredLatent

SPACES = Spaces(obs=(ObsSpec("state", (2,)), ObsSpec("time", (1,))), actions=(ActionSpec("continuous", 3),))


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
    replay = Replay(SPACES, num_envs=num_envs, capacity=capacity, seed=seed)
    for time in range(steps):
        replay.add(numbered_rows(time, num_envs))
    return replay


def assert_same(left: Batch, right: Batch) -> None:
    assert left.obs.keys() == right.obs.keys()
    for name in left.obs:
        np.testing.assert_array_equal(left.obs[name], right.obs[name])
    for name in ("prev_action", "reward", "is_first", "is_last", "is_terminal"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


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


@pytest.mark.parametrize("steps", [0, 1, 17, 20, 20 + 13], ids=["empty", "one", "partly", "full", "wrapped"])
def test_going_on_after_a_restart_is_exact(steps):
    replay = filled_replay(steps, num_envs=2, capacity=40, seed=3)
    if steps:
        replay.sample(4, 1, 1)  # the generator has moved
    arrays, meta = replay.state()
    assert {len(array) for array in arrays.values()} == {min(steps, 20)}
    arrays = {name: array.copy() for name, array in arrays.items()}
    meta = json.loads(json.dumps(meta))

    restored = Replay(SPACES, num_envs=2, capacity=40, seed=99)
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
    restored = Replay(SPACES, num_envs=2, capacity=capacity, seed=0)
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


@pytest.mark.parametrize("steps", [3, 8, 11], ids=["not yet full", "just full", "wrapped"])
def test_end_streams_ends_the_newest_rows_alone(steps):
    replay = filled_replay(steps, num_envs=2, capacity=16)
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
    replay = Replay(spaces, num_envs=2, capacity=16, seed=0)
    for time in range(12):  # 8 stay
        rows = numbered_rows(time, 2)
        replay.add(rows._replace(obs=rows.obs | {"camera": shown[time]}))
    batch = replay.sample(5, 3, 2)
    time, copy = np.moveaxis(np.asarray(batch.obs["state"]), -1, 0).astype(int)
    assert batch.obs["camera"].dtype == np.uint8
    np.testing.assert_array_equal(batch.obs["camera"], shown[time, copy])
    assert replay.batch_shapes(5, 3, 2).obs["camera"] == jax.ShapeDtypeStruct((2, 3, 5, 16, 32, 3), np.uint8)

    arrays, meta = replay.state()
    restored = Replay(spaces, num_envs=2, capacity=16, seed=1)
    restored.load(arrays, meta)
    assert_same(restored.sample(5, 3, 2), replay.sample(5, 3, 2))


def test_a_capacity_below_one_row_of_each_copy_is_refused():
    with pytest.raises(ValueError, match="capacity is 3, expected at least one row of each of 4 copies"):
        Replay(SPACES, num_envs=4, capacity=3, seed=0)


# -- Latent states beside the rows, and the online queue


def latent(time: int, num_envs: int) -> LatentState:
    """A latent state of D=6 units and S=3 groups of K=4 classes in which every number encodes step, copy and place."""
    deter = time + np.arange(num_envs)[:, None] / 4 + 100 * (np.arange(6) // 3)
    stoch = np.eye(4)[(time + np.arange(num_envs)[:, None] + np.arange(3)) % 4]
    return LatentState(deter=np.float32(deter), stoch=np.float32(stoch))


WITH_LATENTS = ModelConfig(deter=6, groups=3, classes=4, blocks=2)


def replay_with_latents(steps: int, *, num_envs: int = 2, capacity: int = 40, online: int = 0) -> Replay:
    """Each row keeps the latent state of its own number."""
    replay = Replay(SPACES, num_envs=num_envs, capacity=capacity, seed=3, context=WITH_LATENTS, online=online)
    for time in range(steps):
        replay.add(numbered_rows(time, num_envs))
        replay.keep_latent(PolicyState(latent(time, num_envs), None))
    return replay


def numbers(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(step, copy) of every row, [U, T, B] each."""
    step, copy = np.moveaxis(np.asarray(batch.obs["state"]), -1, 0).astype(int)
    return step, copy


def expected_context(batch: Batch) -> StoredLatent:
    step, copy = (number[:, 0] for number in numbers(batch))  # [U, B]
    before = step - 1
    deter = before[..., None] + copy[..., None] / 4 + np.repeat([0.0, 100.0], 3)
    return StoredLatent(
        deter=deter.astype(ml_dtypes.bfloat16), stoch=1 + (before[..., None] + copy[..., None] + np.arange(3)) % 4
    )


@pytest.mark.parametrize("steps", [9, 20, 33], ids=["not yet full", "just full", "wrapped"])
def test_a_window_comes_with_the_latent_state_of_the_row_before_it(steps):
    batch = replay_with_latents(steps).sample(50, 4, 3)
    assert batch.context is not None
    chex.assert_trees_all_equal(batch.context, expected_context(batch))
    oldest = max(0, steps - 20)
    first = numbers(batch)[0][:, 0]
    assert (first.min(), first.max()) == (oldest + 1, steps - 4)  # every window that has a row before it
    shapes = replay_with_latents(0).batch_shapes(50, 4, 3)
    assert shapes == jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)


def test_a_row_without_a_latent_state_yet_counts_as_the_zero_state():
    replay = Replay(SPACES, num_envs=1, capacity=8, seed=0, context=WITH_LATENTS)
    for time in range(12):  # the ring turns: what an overwritten row had is forgotten
        replay.add(numbered_rows(time, 1))
        if time < 8:
            replay.keep_latent(PolicyState(latent(time, 1), None))
    assert not replay.can_sample(8)
    batch = replay.sample(100, 3, 1)
    first = numbers(batch)[0][0, 0]
    assert batch.context is not None
    known = np.asarray(batch.context.stoch)[0].any(-1)
    np.testing.assert_array_equal(known, first - 1 < 8)
    assert known.any()
    assert not known.all()


def test_refreshed_latent_states_are_those_of_the_next_draw_but_one():
    replay = replay_with_latents(15)
    draws = [replay.sample(30, 4, 2)]
    for number in (1, 2):
        step, copy = numbers(draws[-1])
        marks = StoredLatent(
            deter=np.full((*step.shape, 6), 1000.0 * number, ml_dtypes.bfloat16),
            stoch=np.full((*step.shape, 3), number, np.uint8),
        )
        replay.refresh(marks)
        draws.append(replay.sample(30, 4, 2))
    assert draws[1].context is not None
    assert draws[2].context is not None
    chex.assert_trees_all_equal(draws[1].context, expected_context(draws[1]))  # they were still under way
    first_draw = {(s, c) for s, c in zip(*(x.ravel() for x in numbers(draws[0])), strict=True)}
    step, copy = (number[:, 0].ravel() for number in numbers(draws[2]))
    refreshed = np.array([(s - 1, c) in first_draw for s, c in zip(step, copy, strict=True)])
    deter = np.asarray(draws[2].context.deter, np.float32).reshape(-1, 6)
    expected = np.asarray(expected_context(draws[2]).deter, np.float32).reshape(-1, 6)
    np.testing.assert_array_equal(deter, np.where(refreshed[:, None], np.float32(1000.0), expected))
    assert refreshed.any()
    assert not refreshed.all()


def test_latent_states_of_overwritten_rows_go_nowhere():
    replay = replay_with_latents(20, capacity=40)
    batch = replay.sample(30, 4, 1)
    for time in range(20, 35):
        replay.add(numbered_rows(time, 2))
        replay.keep_latent(PolicyState(latent(time, 2), None))
    shape = numbers(batch)[0].shape
    for _ in range(2):
        replay.refresh(StoredLatent(np.full((*shape, 6), 7, ml_dtypes.bfloat16), np.full((*shape, 3), 1, np.uint8)))
        drawn = replay.sample(200, 4, 1)
    step, _ = numbers(drawn)
    assert drawn.context is not None
    stale = np.asarray(drawn.context.deter, np.float32)[0, :, 0] == 7
    new = step[0, 0] - 1 >= 20  # in slots that the first draw's rows were in before
    assert new.any()
    assert not stale[new].any()


def test_every_stretch_of_new_rows_is_in_one_of_the_next_batches_once():
    replay = replay_with_latents(0, num_envs=3, capacity=300, online=4)
    seen = []
    for time in range(60):
        replay.add(numbered_rows(time, 3))
        if replay.can_sample(4) and time % 4 == 3:
            step, copy = numbers(replay.sample(3, 4, 1))
            seen += [(s, c) for s, c in zip(step[0, 0], copy[0, 0], strict=True)]
    # Windows begin at 1, 5, 9, ..., because each needs a row before it; as many come in as one batch holds.
    assert seen == [(start, copy) for start in range(1, 54, 4) for copy in range(3)]


@pytest.mark.parametrize("context", [False, True])
def test_going_on_after_a_restart_is_exact_with_latent_states_and_queue(context):
    def empty(seed: int) -> Replay:
        model = WITH_LATENTS if context else None
        return Replay(SPACES, num_envs=2, capacity=40, seed=seed, context=model, online=3)

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


def test_an_episode_that_starts_anew_without_an_end_ends_by_interruption():
    replay = filled_replay(7, num_envs=2)  # rows 6: the middle of an episode of copy 0 and of copy 1
    rows = numbered_rows(7, 2)
    replay.add(rows._replace(is_first=np.array([True, False])))
    arrays, _ = replay.state()
    np.testing.assert_array_equal(arrays["is_last"][6], [True, False])
    np.testing.assert_array_equal(arrays["is_terminal"][6], [False, False])


def test_the_bytes_of_a_full_replay_are_those_of_its_parts():
    spaces = Spaces((ObsSpec("image", (64, 64, 3)),), (ActionSpec("discrete", 17),))
    model = ModelConfig(deter=2048, groups=32)
    replay = Replay(spaces, num_envs=4, capacity=1_000_000, seed=0, context=model)
    parts = 64 * 64 * 3 + 2 * 2048 + 32 + 4 * 17 + 4 + 3  # image, deter, stoch, action, reward, flags
    assert replay.bytes_at_capacity == 1_000_000 * parts


@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 1000), (3, 30)])
def test_looking_changes_nothing_and_shows_what_is_there(num_envs, capacity):
    replay, other = (filled_replay(25, num_envs=num_envs, capacity=capacity) for _ in range(2))
    newest = replay.newest(7)
    assert newest.obs["time"][:, :, 0].tolist() == [[time] * num_envs for time in range(18, 25)]
    assert newest.obs["state"][0, :, 1].tolist() == list(range(num_envs))
    windows = replay.look(50, 4, np.random.default_rng(0))
    assert windows.reward.shape == (4, 50)
    times = windows.obs["time"][..., 0]
    assert (np.diff(times, axis=0) == 1).all()
    assert times.min() == 25 - min(25, capacity // num_envs)  # the oldest row is among 50 windows
    assert (windows.obs["state"][..., 1] == windows.obs["state"][:1, :, 1]).all()  # one copy each
    chex.assert_trees_all_equal(replay.sample(2, 4, 3), other.sample(2, 4, 3))


@settings(max_examples=100, deadline=None)
@given(before=st.integers(1, 4), now=st.integers(1, 4), steps=st.integers(1, 30), slots=st.integers(6, 20))
def test_a_replay_of_another_number_of_copies_keeps_each_episode_together(before, now, steps, slots):
    old = Replay(SPACES, num_envs=before, capacity=slots * before, seed=0, context=WITH_LATENTS)
    for time in range(steps):
        old.add(numbered_rows(time, before))
    arrays, meta = regrouped(*old.state(), now)
    rows = min(steps, slots) * before // now
    new = Replay(SPACES, num_envs=now, capacity=1000, seed=0, context=WITH_LATENTS)
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
