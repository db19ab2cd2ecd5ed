"""The replay on the disk: it draws what the replay in memory draws, and finds its images again."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dreamerjax.config import ConfigError, ModelConfig, ReplayConfig
from dreamerjax.replay import disk as disk_replay
from dreamerjax.replay.disk import DiskRing
from dreamerjax.replay.replay import Replay, make_replay
from dreamerjax.types import ActionSpec, Batch, ObsSpec, Rows, Spaces
from tests.replay.rows import SPACES, assert_same, make, numbered_rows

SEEING = Spaces(obs=(*SPACES.obs, ObsSpec("arm/eye", (16, 16, 1))), actions=(ActionSpec("continuous", 3),))


def rows(time: int) -> Rows:
    """Numbered rows whose images tell the step, too."""
    plain = numbered_rows(time, 2)
    return plain._replace(obs=plain.obs | {"arm/eye": np.full((2, 16, 16, 1), time % 256, np.uint8)})


def on_disk(folder: Path, *, capacity: int = 40, seed: int = 3, online: int = 0) -> Replay:
    return Replay(DiskRing(SEEING, num_envs=2, capacity=capacity, folder=folder), seed=seed, online=online)


def saved(replay: Replay) -> tuple[dict[str, np.ndarray], dict]:
    """As a checkpoint would hold it."""
    arrays, meta = replay.state()
    return {name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(meta))


def assert_images_tell_their_step(batch: Batch) -> None:
    images = np.asarray(batch.obs["arm/eye"])
    np.testing.assert_array_equal(images, np.broadcast_to(batch.obs["time"][..., None, None], images.shape))


@pytest.mark.parametrize("steps", [5, 20, 33], ids=["not yet full", "just full", "wrapped"])
def test_it_draws_what_a_replay_in_memory_draws_and_goes_on_exactly(tmp_path, steps):
    disk, memory = on_disk(tmp_path, online=4), make(SEEING, num_envs=2, capacity=40, seed=3, online=4)
    for time in range(steps):
        disk.add(rows(time))
        memory.add(rows(time))
    assert_same(disk.sample(6, 4, 2), memory.sample(6, 4, 2))
    arrays, meta = saved(disk)
    assert "obs.arm/eye" not in arrays  # the file is the ring: a checkpoint need not hold it
    del disk

    restored = on_disk(tmp_path, seed=99, online=4)
    restored.load(arrays, meta)
    for time in range(steps, steps + 30):
        assert_same(restored.sample(6, 4, 2), memory.sample(6, 4, 2))
        restored.add(rows(time))
        memory.add(rows(time))
    assert_images_tell_their_step(restored.sample(6, 4, 2))


@pytest.mark.parametrize(("before", "after", "left"), [(8, 5, 8), (18, 5, 15), (20, 3, 17), (33, 7, 13), (33, 25, 0)])
def test_rows_that_a_killed_run_wrote_over_older_ones_are_missing_and_no_others(tmp_path, before, after, left):
    killed = on_disk(tmp_path)
    for time in range(before):
        killed.add(rows(time))
    arrays, meta = saved(killed)
    for time in range(before, before + after):
        killed.add(rows(100 + time))
    resumed = on_disk(tmp_path, seed=99)
    resumed.load(arrays, meta)
    assert len(resumed) == 2 * left
    if left:
        batch = resumed.sample(200, 2, 1)
        assert_images_tell_their_step(batch)
        assert batch.obs["time"].min() == before - left
        again = on_disk(tmp_path, seed=98)
        again.load(*saved(resumed))  # the checkpoint after that
        assert len(again) == 2 * left
        batch = again.sample(200, 2, 1)
        assert_images_tell_their_step(batch)
        assert batch.obs["time"].min() == before - left
    for time in range(before, before + 30):
        resumed.add(rows(time))
    assert_images_tell_their_step(resumed.sample(200, 3, 1))


def test_another_storage_or_capacity_is_refused(tmp_path):
    memory = make(SEEING, num_envs=2, capacity=40, seed=0)
    for time in range(5):
        memory.add(rows(time))
    message = "saved with replay.storage memory or another replay.capacity"
    with pytest.raises(ConfigError, match=message):
        on_disk(tmp_path).load(*memory.state())
    disk = on_disk(tmp_path)
    with pytest.raises(ConfigError, match=message):
        on_disk(tmp_path / "other", capacity=20).load(*disk.state())


def test_a_refused_capacity_leaves_the_files_as_they_are(tmp_path):
    disk = on_disk(tmp_path)
    for time in range(5):
        disk.add(rows(time))
    arrays, meta = saved(disk)
    with pytest.raises(ConfigError, match=r"another replay.capacity or env.num_envs\. Give the settings that it had"):
        on_disk(tmp_path, capacity=20)
    resumed = on_disk(tmp_path)
    resumed.load(arrays, meta)
    assert len(resumed) == 10
    assert_images_tell_their_step(resumed.sample(20, 2, 1))


def test_files_take_no_room_before_they_are_filled_and_no_memory(tmp_path):
    disk = on_disk(tmp_path, capacity=400_000)
    (file,) = tmp_path.glob("*eye.ring")
    assert file.stat().st_size == 400_000 * 256
    assert file.stat().st_blocks * 512 < 1e6
    assert disk.bytes_at_capacity < 400_000 * 64


def test_a_disk_without_room_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_replay.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5000))
    with pytest.raises(ConfigError, match=r"its 0.0 GB do not fit into the 0.0 GB that are free in .*smaller --replay"):
        on_disk(tmp_path)


def test_the_settings_choose(tmp_path):
    config = ReplayConfig(capacity=40, storage="disk")
    options = {"num_envs": 2, "seed": 0, "model": ModelConfig(deter=8, groups=2), "sequence_length": 4}
    make_replay(config, SEEING, folder=tmp_path / "replay", **options)
    assert [path.name for path in (tmp_path / "replay").glob("*eye.ring")] == ["obs.arm%2Feye.ring"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be taken beforehand")
def test_a_disk_that_becomes_full_is_an_error_before_anything_is_stored(tmp_path, monkeypatch):
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk_replay, "SLOTS_AT_ONCE", 4)
    disk = on_disk(tmp_path)
    for time in range(4):
        disk.add(rows(time))
    eye = next(path for path in tmp_path.iterdir() if "eye" in path.name)
    assert eye.stat().st_blocks * 512 >= 4 * 2 * 16 * 16, "the room of the first slots was taken"
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        disk.add(rows(4))
    assert disk.rows_added == 8
    monkeypatch.undo()
    disk.add(rows(4))
    assert_images_tell_their_step(disk.sample(4, 4, 1))
