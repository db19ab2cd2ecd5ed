"""What a checkpoint contains comes back unchanged."""

import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot
from tests.runs.checkpoint.snapshots import assert_same, flip_bit, like, make_snapshot, make_state, save_two


def test_a_round_trip_changes_nothing(folder: Path) -> None:
    assert not checkpoint.has_checkpoint(folder)
    path = checkpoint.save(folder, 4000, make_snapshot(), keep=1)
    assert path == folder / "0000004000"
    assert checkpoint.has_checkpoint(folder)
    assert {entry.name for entry in path.iterdir()} == {
        "train_state",
        "arrays.npz",
        "host.json",
        "opaque.pkl",
        "MANIFEST.json",
    }
    snapshot, restored = checkpoint.restore(folder, like())
    assert restored == (4000, ())
    assert_same(snapshot, make_snapshot())


def test_arrays_are_read_from_the_disk_as_they_are_used(folder: Path) -> None:
    """A replay of many gigabytes must not be in memory twice when a run resumes."""
    large = np.random.default_rng(0).normal(size=(1000, 50)).astype(np.float32)
    arrays = {"rows": large, "turned": np.asfortranarray(large), "none": np.zeros((0, 3)), "one": np.array(True)}
    checkpoint.save(folder, 1, make_snapshot()._replace(arrays=arrays), keep=1)
    restored = checkpoint.restore(folder, like())[0].arrays
    assert isinstance(restored["rows"], np.memmap)
    for name, array in arrays.items():
        np.testing.assert_array_equal(restored[name], array)
        assert restored[name].dtype == array.dtype


def test_a_restored_state_can_be_donated(folder: Path) -> None:
    """A warning about donation would be an error here."""
    checkpoint.save(folder, 1, make_snapshot(), keep=1)
    state = checkpoint.restore(folder, like())[0].train_state
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x + x, tree), donate_argnums=0)
    doubled = double(state)
    assert jax.tree.leaves(state)[0].is_deleted()
    assert doubled.step == 14


def test_an_empty_replay_and_no_bytes(folder: Path) -> None:
    snapshot = Snapshot(make_state(), {}, {})
    path = checkpoint.save(folder, 0, snapshot, keep=1)
    assert not (path / "opaque.pkl").exists()
    assert_same(checkpoint.restore(folder, like())[0], snapshot)


def test_weights_only_needs_nothing_else(folder: Path) -> None:
    path = checkpoint.save(folder, 4000, make_snapshot(), keep=1)
    (path / "arrays.npz").unlink()
    flip_bit(path / "opaque.pkl", 0)
    snapshot, restored = checkpoint.restore(folder, like(), weights_only=True)
    assert restored == (4000, ())
    assert_same(snapshot, make_snapshot()._replace(arrays={}, opaque=b""))
    with pytest.raises(CheckpointError, match=r"4000 \(arrays.npz is missing\)"):
        checkpoint.restore(folder, like())


def test_raw_needs_no_model(folder: Path) -> None:
    save_two(folder)
    tree, restored = checkpoint.restore_raw(folder)
    assert restored == (4000, ())
    kernel = tree["params"]["actor"]["dense"]["kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, make_state(1).params.actor["dense"]["kernel"])


def test_orbax_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    absl = logging.getLogger("absl")
    before = absl.level
    absl.setLevel(logging.INFO)
    try:
        save_two(folder)
        checkpoint.restore(folder, like())
        assert absl.level == logging.INFO
    finally:
        absl.setLevel(before)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
