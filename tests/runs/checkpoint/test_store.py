"""Saved checkpoints survive interrupted writes, full disks and killed processes."""

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot, contents, disk, manifest
from tests.runs.checkpoint.snapshots import assert_same, flip_bit, like, make_snapshot, save_two


def test_no_checkpoint(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"^No checkpoint in .*\nTrain first"):
            checkpoint.restore(folder, like())
        folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes").mkdir()
    (folder / ".tmp-4000-1").mkdir()
    assert not checkpoint.has_checkpoint(folder)


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


@pytest.mark.parametrize(
    ("module", "interrupted"),
    [(manifest, "write_manifest"), (disk, "flush"), (contents, "write_train_state")],
    ids=["manifest", "flush", "train state"],
)
def test_an_interrupted_write_leaves_the_older_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, interrupted: str
) -> None:
    checkpoint.save(folder, 3000, make_snapshot(0), keep=2)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, interrupted, stop)
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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
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
