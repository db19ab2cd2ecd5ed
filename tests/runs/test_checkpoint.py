"""Checkpoints: nothing is lost, and nothing damaged is used."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot
from dreamerjax.types import Knobs, Params, ReturnScale, TrainState


def make_state(seed: int = 0, width: int = 3) -> TrainState:
    """A small TrainState with every kind of leaf: floats, integers, keys, scalars and empty optimizer states."""
    key = jax.random.PRNGKey(seed)
    weights = {"dense": {"kernel": jax.random.normal(key, (width, 4)), "bias": jnp.ones(4, jnp.bfloat16)}}
    optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3))
    opt_state: Any = optimizer.init(weights)
    return TrainState(
        step=jnp.asarray(7 + seed, jnp.int32),
        params=Params(world_model=weights, actor=weights, critic=weights),
        slow_critic=weights,
        opt_state=Params(world_model=opt_state, actor=opt_state, critic=opt_state),
        return_scale=ReturnScale(low=jnp.float32(-1.5), high=jnp.float32(2.5)),
        knobs=Knobs(*(jnp.float32(0.1 * index) for index in range(len(Knobs.__dataclass_fields__)))),
        key=key,
    )


def make_snapshot(seed: int = 0, width: int = 3) -> Snapshot:
    arrays = {
        "obs/image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4) + np.uint8(seed),
        "reward": np.linspace(-1.0, 1.0, 5, dtype=np.float64),
        "head": np.asarray(2**40, np.int64),
    }
    return Snapshot(make_state(seed, width), arrays, {"env_steps": 4000 + seed, "random": 2**100, "best": -1.5}, b"\0x")


def like(width: int = 3) -> Any:
    return jax.eval_shape(lambda: make_state(0, width))


def assert_same(given: Snapshot, expected: Snapshot) -> None:
    assert jax.tree.structure(given.train_state) == jax.tree.structure(expected.train_state)
    for left, right in zip(jax.tree.leaves(given.train_state), jax.tree.leaves(expected.train_state), strict=True):
        assert isinstance(left, jax.Array)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        np.testing.assert_array_equal(left, right)
    assert given.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert given.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(given.arrays[name], array)
    assert (given.host, given.opaque) == (expected.host, expected.opaque)


def files_of(step_folder: Path) -> list[Path]:
    return sorted(path for path in step_folder.rglob("*") if path.is_file())


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def save_two(folder: Path) -> Path:
    """Saves 3000 (seed 0) and 4000 (seed 1); returns the folder of the newer."""
    checkpoint.save(folder, 3000, make_snapshot(0), keep=3)
    return checkpoint.save(folder, 4000, make_snapshot(1), keep=3)


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


def test_the_stored_state_may_have_another_precision(folder: Path) -> None:
    checkpoint.save(folder, 1, make_snapshot(), keep=1)

    def half(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return leaf.update(dtype=jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf

    state = checkpoint.restore(folder, jax.tree.map(half, like()))[0].train_state
    kernel = state.params.actor["dense"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel, make_state().params.actor["dense"]["kernel"].astype(jnp.bfloat16))
    assert state.key.dtype == jnp.uint32


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


def test_weights_only_still_checks_the_weights(folder: Path) -> None:
    path = save_two(folder)
    file = max((path / "train_state").rglob("d/*"), key=lambda entry: entry.stat().st_size)
    flip_bit(file, file.stat().st_size // 2)
    snapshot, restored = checkpoint.restore(folder, like(), weights_only=True)
    assert restored.step == 3000
    assert_same(snapshot, make_snapshot(0)._replace(arrays={}, opaque=b""))


def test_raw_needs_no_model(folder: Path) -> None:
    save_two(folder)
    tree, restored = checkpoint.restore_raw(folder)
    assert restored == (4000, ())
    kernel = tree["params"]["actor"]["dense"]["kernel"]
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, make_state(1).params.actor["dense"]["kernel"])


def test_one_flipped_bit_in_any_file_is_found(folder: Path) -> None:
    path = save_two(folder)
    files = files_of(path)
    assert len(files) > 8
    for file in files:
        whole = file.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            flip_bit(file, position)
            step, skipped = checkpoint._newest_good(folder, checkpoint._ALL)[1]
            assert step == 3000, f"{file}, byte {position}"
            name = file.relative_to(path).as_posix()
            assert len(skipped) == 1
            assert skipped[0].startswith(f"checkpoint 4000 is damaged ({name} ")
            assert skipped[0].endswith("): using 3000")
            file.write_bytes(whole)
    assert_same(checkpoint.restore(folder, like())[0], make_snapshot(1))


def test_one_flipped_bit_anywhere_in_the_manifest_is_found(folder: Path) -> None:
    path = checkpoint.save(folder, 1, Snapshot({"x": jnp.zeros(1)}, {}, {}), keep=1)
    manifest = path / "MANIFEST.json"
    for position in range(manifest.stat().st_size):
        flip_bit(manifest, position)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint._newest_good(folder, checkpoint._ALL)
        flip_bit(manifest, position)
    assert checkpoint.restore_raw(folder)[1].step == 1


def test_a_truncated_or_missing_file_is_found(folder: Path) -> None:
    path = save_two(folder)
    for file in files_of(path):
        whole = file.read_bytes()
        name = file.relative_to(path).as_posix()
        for content in (whole[:-1], b"", None):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            skipped = checkpoint._newest_good(folder, checkpoint._ALL)[1].skipped
            assert len(skipped) == 1
            if name != "MANIFEST.json":
                size = f"has {len(content or b'')} of {len(whole)} bytes"
                assert skipped[0] == (
                    f"checkpoint 4000 is damaged ({name} {'is missing' if content is None else size}): using 3000"
                )
            file.write_bytes(whole)


def test_the_older_checkpoint_is_used_and_that_is_said(folder: Path) -> None:
    path = save_two(folder)
    flip_bit(path / "arrays.npz", 200)
    snapshot, restored = checkpoint.restore(folder, like())
    assert_same(snapshot, make_snapshot(0))
    assert restored == (3000, ("checkpoint 4000 is damaged (arrays.npz has the wrong checksum): using 3000",))


def test_a_checkpoint_without_a_manifest_is_not_used(folder: Path) -> None:
    (save_two(folder) / "MANIFEST.json").unlink()
    assert checkpoint.restore(folder, like())[1] == (
        3000,
        ("checkpoint 4000 is damaged (MANIFEST.json is missing): using 3000",),
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "\xff", '{"sha256": "0"}'])
def test_a_foreign_manifest_is_not_used(folder: Path, text: str) -> None:
    path = checkpoint.save(folder, 1, Snapshot({"x": jnp.zeros(1)}, {}, {}), keep=1)
    (path / "MANIFEST.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"1 \(MANIFEST.json "):
        checkpoint.restore_raw(folder)


def test_a_later_format_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(folder, 1, Snapshot({"x": jnp.zeros(1)}, {}, {}), keep=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="its format is 2, expected 1"):
        checkpoint.restore_raw(folder)


def test_no_checkpoint(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"^No checkpoint in .*\nTrain first"):
            checkpoint.restore(folder, like())
        folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes").mkdir()
    (folder / ".tmp-4000-1").mkdir()
    assert not checkpoint.has_checkpoint(folder)


def test_all_damaged_names_each(folder: Path) -> None:
    newest = save_two(folder)
    flip_bit(newest / "host.json", 0)
    shutil.rmtree(folder / "0000003000" / "train_state")
    (folder / "0000002000").mkdir()
    assert checkpoint.has_checkpoint(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(folder, like())
    message = str(caught.value)
    assert "4000 (host.json has the wrong checksum); 3000 (train_state/" in message
    assert "2000 (MANIFEST.json is missing)" in message
    assert len(message.splitlines()) == 2


def test_another_shape_is_named(folder: Path) -> None:
    checkpoint.save(folder, 4000, make_snapshot(), keep=1)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(folder, like(width=5))
    assert str(caught.value).startswith(
        "Checkpoint 4000 is of another model: params.world_model.dense.kernel is float32[3,4] there, "
        "expected float32[5,4].\n"
    )


def test_another_structure_or_kind_is_named(folder: Path) -> None:
    checkpoint.save(folder, 1, Snapshot({"a": jnp.zeros(2), "b": jnp.zeros((), jnp.int32)}, {}, {}), keep=1)
    a, b = jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    with pytest.raises(CheckpointError, match=r"c\.0 is missing there, expected int32\[\]"):
        checkpoint.restore(folder, {"a": a, "b": b, "c": (b,)})
    with pytest.raises(CheckpointError, match=r"b is int32\[\] there, expected missing"):
        checkpoint.restore(folder, {"a": a})
    with pytest.raises(CheckpointError, match=r"b is int32\[\] there, expected uint32\[\]"):
        checkpoint.restore(folder, {"a": a, "b": b.update(dtype=jnp.uint32)})
    assert checkpoint.restore(folder, {"a": a, "b": b, "empty": optax.EmptyState()})[1].step == 1


def test_only_the_newest_are_kept(folder: Path) -> None:
    for step in (1000, 2000, 3000, 4000):
        checkpoint.save(folder, step, Snapshot({"x": jnp.full(2, step)}, {}, {}), keep=2)
    assert sorted(path.name for path in folder.iterdir()) == ["0000003000", "0000004000"]


def test_later_checkpoints_of_a_run_that_went_back_are_removed(folder: Path) -> None:
    flip_bit(save_two(folder) / "host.json", 0)
    checkpoint.save(folder, 3500, make_snapshot(2), keep=2)
    assert sorted(path.name for path in folder.iterdir()) == ["0000003000", "0000003500"]
    assert checkpoint.restore(folder, like())[1] == (3500, ())


def test_the_same_step_is_replaced(folder: Path) -> None:
    checkpoint.save(folder, 4000, make_snapshot(0), keep=2)
    checkpoint.save(folder, 4000, make_snapshot(1), keep=2)
    assert [path.name for path in folder.iterdir()] == ["0000004000"]
    assert_same(checkpoint.restore(folder, like())[0], make_snapshot(1))


def test_a_replacement_that_was_cut_short_loses_nothing(folder: Path) -> None:
    """Killed between the two renames, and killed right after them."""
    path = checkpoint.save(folder, 4000, make_snapshot(0), keep=2)
    path.rename(folder / "0000004000-replaced")
    assert checkpoint.has_checkpoint(folder)
    snapshot, restored = checkpoint.restore(folder, like())
    assert restored == (4000, ())
    assert_same(snapshot, make_snapshot(0))
    checkpoint.save(folder, 4000, make_snapshot(1), keep=2)
    assert [entry.name for entry in folder.iterdir()] == ["0000004000"]
    shutil.copytree(path, folder / "0000004000-replaced")
    checkpoint.save(folder, 4000, make_snapshot(2), keep=2)
    assert [entry.name for entry in folder.iterdir()] == ["0000004000"]
    assert_same(checkpoint.restore(folder, like())[0], make_snapshot(2))


def test_a_replacement_that_fails_keeps_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(folder, 4000, make_snapshot(0), keep=2)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.startswith(".tmp-4000"):
            raise OSError(5, os.strerror(5))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(CheckpointError, match="input/output error"):
        checkpoint.save(folder, 4000, make_snapshot(1), keep=2)
    monkeypatch.undo()
    assert_same(checkpoint.restore(folder, like())[0], make_snapshot(0))


@pytest.mark.parametrize("interrupted", ["_seal", "_flush", "_write_train_state"])
def test_an_interrupted_write_leaves_the_older_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    checkpoint.save(folder, 3000, make_snapshot(0), keep=2)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, interrupted, stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, 4000, make_snapshot(1), keep=2)
    monkeypatch.undo()
    assert [path.name for path in folder.iterdir()] == ["0000003000"]
    assert_same(checkpoint.restore(folder, like())[0], make_snapshot(0))


def test_what_a_killed_process_left_is_ignored_then_removed(folder: Path) -> None:
    path = save_two(folder)
    (path / "MANIFEST.json").unlink()
    path.rename(folder / ".tmp-4000-99999")
    assert checkpoint.restore(folder, like())[1] == (3000, ())
    checkpoint.save(folder, 3001, make_snapshot(), keep=2)
    assert sorted(entry.name for entry in folder.iterdir()) == ["0000003000", "0000003001"]


SAVE_FOREVER = """
import itertools, sys
from pathlib import Path
import numpy as np
from dreamerjax.runs import checkpoint
for step in itertools.count():
    filled = np.full(100_000, step, np.int32)
    checkpoint.save(Path(sys.argv[1]), step, checkpoint.Snapshot({"x": filled}, {"x": filled}, {"step": step}), keep=2)
    print(step, flush=True)
"""


def test_a_process_killed_while_it_saves_loses_at_most_that_checkpoint(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", SAVE_FOREVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.02)
        process.kill()
        said = 2 + len(process.stdout.readlines())
    snapshot, restored = checkpoint.restore(folder, {"x": jax.ShapeDtypeStruct((100_000,), jnp.int32)})
    assert said >= 2
    assert restored.step in (said, said + 1)
    assert restored.skipped == ()
    assert snapshot.host == {"step": restored.step}
    assert set(np.asarray(snapshot.train_state["x"])) == set(snapshot.arrays["x"]) == {restored.step}


def test_too_little_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(folder, 3000, make_snapshot(0), keep=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))  # type: ignore[attr-defined]
    with pytest.raises(
        CheckpointError, match=r"4000 could not be written to .*no space left, 1 MB needed and 0 MB free"
    ) as caught:
        checkpoint.save(folder, 4000, make_snapshot(1), keep=1)
    assert len(str(caught.value).splitlines()) == 2
    assert [path.name for path in folder.iterdir()] == ["0000003000"]


@pytest.mark.parametrize("large", ["train_state", "arrays"])
def test_a_write_that_fails_half_way(folder: Path, capfd: pytest.CaptureFixture[str], large: str) -> None:
    """The system refuses files above 100 kB: a full disk, without filling one. Orbax's tracebacks stay unseen."""
    checkpoint.save(folder, 3000, make_snapshot(0), keep=1)
    noise = np.random.default_rng(0).standard_normal(100_000)
    snapshot = make_snapshot(1)
    if large == "arrays":
        snapshot = snapshot._replace(arrays={"noise": noise})
    else:
        snapshot = snapshot._replace(train_state={"noise": noise.astype(np.float32)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capfd.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"4000 could not be written to .*file too large"):
            checkpoint.save(folder, 4000, snapshot, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in folder.iterdir()] == ["0000003000"]
    assert_same(checkpoint.restore(folder, like())[0], make_snapshot(0))
    checkpoint.save(folder, 4000, snapshot, keep=1)


def test_a_file_in_place_of_the_folder(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("not a folder")
    with pytest.raises(CheckpointError, match="file exists"):
        checkpoint.save(folder, 1, make_snapshot(), keep=1)
    assert folder.read_text() == "not a folder"


def test_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *_: object) -> None:
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(CheckpointError, match="permission denied"):
        checkpoint.save(folder, 1, make_snapshot(), keep=1)


def test_mistakes_of_the_caller_are_not_hidden(folder: Path) -> None:
    checkpoint.save(folder, 3000, make_snapshot(0), keep=1)
    with pytest.raises(ValueError, match="keep is 0"):
        checkpoint.save(folder, 4000, make_snapshot(), keep=0)
    for step in (-1, 10**10):
        with pytest.raises(ValueError, match=f"step is {step}"):
            checkpoint.save(folder, step, make_snapshot(), keep=1)
    with pytest.raises(TypeError):
        checkpoint.save(folder, 4000, make_snapshot()._replace(host={"when": object()}), keep=1)
    with pytest.raises(ValueError, match="Object arrays"):
        checkpoint.save(folder, 4000, make_snapshot()._replace(arrays={"x": np.asarray([None])}), keep=1)
    with pytest.raises(ValueError, match=r"x is float32\[0,2\]"):
        checkpoint.save(folder, 4000, make_snapshot()._replace(train_state={"x": jnp.zeros((0, 2))}), keep=1)
    assert [path.name for path in folder.iterdir()] == ["0000003000"]


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


def test_the_manifest_is_for_people_too(folder: Path) -> None:
    path = checkpoint.save(folder, 1, make_snapshot(), keep=1)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["format"] == 1
    assert manifest["files"]["opaque.pkl"]["size"] == 2
    names = {file.relative_to(path).as_posix() for file in files_of(path)}
    assert manifest["files"].keys() == names - {"MANIFEST.json"}
