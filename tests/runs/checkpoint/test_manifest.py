"""Nothing damaged is used."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot, manifest, store
from tests.runs.checkpoint.snapshots import assert_same, files_of, flip_bit, like, make_snapshot, save_two


def test_weights_only_still_checks_the_weights(folder: Path) -> None:
    path = save_two(folder)
    file = max((path / "train_state").rglob("d/*"), key=lambda entry: entry.stat().st_size)
    flip_bit(file, file.stat().st_size // 2)
    snapshot, restored = checkpoint.restore(folder, like(), weights_only=True)
    assert restored.step == 3000
    assert_same(snapshot, make_snapshot(0)._replace(arrays={}, opaque=b""))


def test_one_flipped_bit_in_any_file_is_found(folder: Path) -> None:
    path = save_two(folder)
    files = files_of(path)
    assert len(files) > 8
    for file in files:
        whole = file.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            flip_bit(file, position)
            step, skipped = store.newest_whole(folder, store.ALL)[1]
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
            store.newest_whole(folder, store.ALL)
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
            skipped = store.newest_whole(folder, store.ALL)[1].skipped
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
    monkeypatch.setattr(manifest, "FORMAT", 2)
    checkpoint.save(folder, 1, Snapshot({"x": jnp.zeros(1)}, {}, {}), keep=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="its format is 2, expected 1"):
        checkpoint.restore_raw(folder)


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


def test_the_manifest_is_for_people_too(folder: Path) -> None:
    path = checkpoint.save(folder, 1, make_snapshot(), keep=1)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["format"] == 1
    assert manifest["files"]["opaque.pkl"]["size"] == 2
    names = {file.relative_to(path).as_posix() for file in files_of(path)}
    assert manifest["files"].keys() == names - {"MANIFEST.json"}
