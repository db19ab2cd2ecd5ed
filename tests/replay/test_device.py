"""The replay on the device: it draws what the replay on the host draws, whatever happened to either before."""

from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamerjax.config import ConfigError, ReplayConfig
from dreamerjax.replay import device as device_replay
from dreamerjax.replay.device import DeviceRing
from dreamerjax.replay.replay import Replay, make_replay
from dreamerjax.replay.ring import Ring
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.replay.rows import SPACES, assert_same, numbered_rows
from tests.tiny import MODEL

OPTIONS = {"num_envs": 1, "seed": 0, "model": MODEL, "sequence_length": 4, "folder": Path()}
CAMERA = Spaces(obs=(*SPACES.obs, ObsSpec("camera", (16, 16, 1))), actions=(ActionSpec("continuous", 3),))


def both(num_envs: int, capacity: int, spaces: Spaces = SPACES) -> tuple[Replay, Replay]:
    """A replay on the device, and the same on the host."""
    rings = (kind(spaces, num_envs=num_envs, capacity=capacity) for kind in (DeviceRing, Ring))
    on_device, on_host = (Replay(ring, seed=0) for ring in rings)
    return on_device, on_host


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_replay, "CHUNK", 4)


@settings(max_examples=15, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    slots=st.integers(2, 11),
    steps=st.lists(st.integers(0, 14), min_size=1, max_size=4),
)
def test_it_draws_the_same_rows_to_the_bit(num_envs, slots, steps):
    """Steps come in between draws: none, fewer or more than a chunk, or than the ring holds."""
    on_device, on_host = both(num_envs, slots * num_envs)
    time = 0
    for count in steps:
        for _ in range(count):
            for replay in (on_device, on_host):
                replay.add(numbered_rows(time, num_envs))
            time += 1
        if on_host.can_sample(2):
            drawn = on_device.sample(5, 2, 3)
            assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(drawn))
            assert_same(drawn, on_host.sample(5, 2, 3))


def test_a_stream_that_ends_is_seen_on_the_device():
    on_device, on_host = both(2, 20)
    for replay in (on_device, on_host):
        for time in range(7):
            replay.add(numbered_rows(time, 2))
        replay.sample(4, 7, 1)  # the device has caught up
        replay.end_streams()
    drawn = on_device.sample(4, 7, 1)
    assert_same(drawn, on_host.sample(4, 7, 1))
    assert np.asarray(drawn.is_last)[0, -1].all()


def test_what_one_kind_saves_the_other_loads():
    on_device, on_host = both(2, 20)
    for time in range(13):
        on_host.add(numbered_rows(time, 2))
    for time in range(5):
        on_device.add(numbered_rows(100 + time, 2))
    on_device.sample(4, 2, 1)
    on_device.load(*on_host.state())
    assert_same(on_device.sample(6, 3, 2), on_host.sample(6, 3, 2))


def test_images_stay_uint8():
    on_device, on_host = both(1, 10, CAMERA)
    generator = np.random.default_rng(0)
    for time in range(6):
        rows = numbered_rows(time, 1)
        rows.obs["camera"] = generator.integers(256, size=(1, 16, 16, 1), dtype=np.uint8)
        on_device.add(rows)
        on_host.add(rows)
    drawn, expected = on_device.sample(3, 4, 1), on_host.sample(3, 4, 1)
    assert drawn.obs["camera"].dtype == np.uint8
    np.testing.assert_array_equal(drawn.obs["camera"], expected.obs["camera"])


def test_the_settings_choose():
    replays = [make_replay(ReplayConfig(capacity=10, storage=kind), SPACES, **OPTIONS) for kind in ("memory", "device")]
    for replay in replays:
        for time in range(6):
            replay.add(numbered_rows(time, 1))
    in_memory, on_device = (jax.tree.leaves(replay.newest(4)) for replay in replays)
    assert all(isinstance(leaf, np.ndarray) for leaf in in_memory)
    assert all(isinstance(leaf, jax.Array) for leaf in on_device)


def test_no_room_on_the_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    def no_room(*shape: object) -> jax.Array:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 24000000000 bytes.")

    monkeypatch.setattr(device_replay.jnp, "zeros", no_room)
    expected = r"no room for the 0.0 GB of replay.capacity 1,000 rows. Give a smaller --replay.capacity, or "
    with pytest.raises(ConfigError, match=expected):
        DeviceRing(SPACES, num_envs=1, capacity=1000)
