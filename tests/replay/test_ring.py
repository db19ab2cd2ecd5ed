"""The ring: what is stored, where episodes end, and how much memory it takes."""

import jax
import numpy as np
import pytest

from dreamerjax.config import ModelConfig
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.replay.rows import SPACES, assert_same, filled_replay, make, numbered_rows


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


def test_an_episode_that_starts_anew_without_an_end_ends_by_interruption():
    replay = filled_replay(7, num_envs=2)  # rows 6: the middle of an episode of copy 0 and of copy 1
    rows = numbered_rows(7, 2)
    replay.add(rows._replace(is_first=np.array([True, False])))
    arrays, _ = replay.state()
    np.testing.assert_array_equal(arrays["is_last"][6], [True, False])
    np.testing.assert_array_equal(arrays["is_terminal"][6], [False, False])


def test_images_are_stored_and_drawn_as_uint8():
    spaces = Spaces(obs=(ObsSpec("camera", (16, 32, 3)), *SPACES.obs), actions=SPACES.actions)
    shown = np.random.default_rng(0).integers(256, size=(12, 2, 16, 32, 3), dtype=np.uint8)  # [time, copies, ...]
    replay = make(spaces, num_envs=2, capacity=16, seed=0)
    for time in range(12):  # 8 stay
        rows = numbered_rows(time, 2)
        replay.add(rows._replace(obs=rows.obs | {"camera": shown[time]}))
    batch = replay.sample(5, 3, 2)
    time, copy = np.moveaxis(np.asarray(batch.obs["state"]), -1, 0).astype(int)
    assert batch.obs["camera"].dtype == np.uint8
    np.testing.assert_array_equal(batch.obs["camera"], shown[time, copy])
    assert replay.batch_shapes(5, 3, 2).obs["camera"] == jax.ShapeDtypeStruct((2, 3, 5, 16, 32, 3), np.uint8)

    arrays, meta = replay.state()
    restored = make(spaces, num_envs=2, capacity=16, seed=1)
    restored.load(arrays, meta)
    assert_same(restored.sample(5, 3, 2), replay.sample(5, 3, 2))


def test_a_capacity_below_one_row_of_each_copy_is_refused():
    with pytest.raises(ValueError, match="capacity is 3, expected at least one row of each of 4 environments"):
        make(SPACES, num_envs=4, capacity=3, seed=0)


def test_the_bytes_of_a_full_replay_are_those_of_its_parts():
    spaces = Spaces((ObsSpec("image", (64, 64, 3)),), (ActionSpec("discrete", 17),))
    model = ModelConfig(deter=2048, groups=32)
    replay = make(spaces, num_envs=4, capacity=1_000_000, seed=0, context=model)
    parts = 64 * 64 * 3 + 2 * 2048 + 32 + 4 * 17 + 4 + 3  # image, deter, stoch, action, reward, flags
    assert replay.bytes_at_capacity == 1_000_000 * parts
