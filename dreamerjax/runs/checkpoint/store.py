"""The checkpoints of a run: saves them, and restores the newest complete one.

A checkpoint is written under a temporary name, flushed to the disk and then renamed: a folder with its final name is
complete. If a file was truncated or changed afterwards, it does not match the manifest. `restore` then uses the
next older checkpoint.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamerjax.runs.checkpoint import contents, disk, manifest
from dreamerjax.runs.checkpoint.compatibility import check_family, describe, fit, names_of
from dreamerjax.runs.checkpoint.snapshot import CheckpointError, Snapshot

ALL = ("",)  # beginnings of the names of files
WEIGHTS = (contents.HOST, f"{contents.TRAIN_STATE}/")
REPLACED = "-replaced"  # a checkpoint whose successor, of the same step, is about to take its name


class Restored(NamedTuple):
    """Which checkpoint was read."""

    step: int  # environment steps
    skipped: tuple[str, ...]  # newer checkpoints that are damaged, one sentence each


def save(folder: Path, step: int, snapshot: Snapshot, *, keep: int) -> Path:
    """Writes a checkpoint, then removes all but the newest `keep`.

    A checkpoint of the same step is replaced. Those of later steps are removed: the run has gone back behind them.

    Args:
        folder: the run's `checkpoints` folder; made if it is missing.
        step: environment steps made.
        snapshot: what to write; the state is copied from its device first.
        keep: how many checkpoints remain, this one included; 1 or more.

    Returns:
        The folder of this checkpoint.

    Raises:
        CheckpointError: no space, no permission or a failing disk. Older checkpoints are unchanged.
        ValueError: `keep` or `step` is out of range, or an array is empty (in the train state) or holds Python objects
            (in `arrays`).
        TypeError: `snapshot.host` is not JSON-able.
    """
    if keep < 1 or not 0 <= step < 10**10:
        raise ValueError(f"keep is {keep} and step is {step}, expected keep >= 1 and 0 <= step < 10^10.")
    snapshot = snapshot._replace(train_state=jax.device_get(snapshot.train_state))
    for path, leaf in jax.tree_util.tree_leaves_with_path(snapshot.train_state):
        if np.size(leaf) == 0:  # orbax refuses it too, but leaves threads running
            raise ValueError(f"{'.'.join(names_of(path))} is {describe(leaf)}: it holds no number to write.")
    try:
        final = _write(folder, step, snapshot)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"Checkpoint {step} could not be written to {folder}: {reason[:1].lower()}{reason[1:]}.\n"
            "Older checkpoints are intact: free space or correct the permissions, then resume with the same command."
        ) from error
    kept = [path for other, path in _found(folder) if other <= step and not path.name.endswith(REPLACED)][:keep]
    for _, path in _found(folder):
        if path not in kept:
            disk.discard(path)
    return final


def restore(
    folder: Path,
    like: Any,
    *,
    family: Mapping[str, Any] | None = None,
    weights_only: bool = False,
    step: int | None = None,
) -> tuple[Snapshot, Restored]:
    """Reads the newest checkpoint that is whole.

    Args:
        folder: the run's `checkpoints` folder; nothing in it is changed.
        like: the expected train state, as arrays or as `jax.ShapeDtypeStruct`s.
        family: the expected keys of the model family (`config.family_key`); None: any.
        weights_only: read and check only the train state and host.json; `arrays` and `opaque` stay empty, and the
            stored train state may hold more than `like`.
        step: the checkpoint of this environment step instead of the newest.

    Returns:
        The snapshot, with the train state as arrays on the default device in the dtypes of `like` and `arrays` as
        memory maps of files; and which checkpoint it is.

    Raises:
        CheckpointError: there is no checkpoint, all are damaged, it is of another family, or the train state differs
            from `like`.
    """
    path, restored = newest_whole(folder, WEIGHTS if weights_only else ALL, step)
    host = contents.read_host(path)
    check_family(host, family, step=restored.step)
    train_state = fit(contents.read_train_state(path), like, step=restored.step, partly=weights_only)
    if weights_only:
        return Snapshot(train_state, {}, host), restored
    return Snapshot(train_state, contents.map_arrays(path), host, contents.read_opaque(path)), restored


def restore_raw(folder: Path) -> tuple[dict[str, Any], Restored]:
    """Reads the train state of the newest checkpoint that is whole, whatever its shapes.

    Returns:
        Nested dicts (lists for tuples) of numpy arrays, named like the fields of TrainState; and which checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    path, restored = newest_whole(folder, WEIGHTS)
    return contents.read_train_state(path), restored


def read_host(folder: Path, *, step: int | None = None) -> tuple[dict[str, Any], Restored]:
    """Reads host.json of the newest checkpoint in which it is whole, or of one step; other files are not checked.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    path, restored = newest_whole(folder, (contents.HOST,), step)
    return contents.read_host(path), restored


def read_arrays(folder: Path, *, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and host.json of the newest checkpoint in which they are whole, or of one step.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    path, _ = newest_whole(folder, (contents.HOST, contents.ARRAYS), step)
    return contents.map_arrays(path), contents.read_host(path)


def steps(folder: Path) -> list[int]:
    """The environment steps of all checkpoints, whole or not, in the order of time."""
    return sorted({step for step, _ in _found(folder)})


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds any checkpoint, whole or not.

    Raises:
        OSError: the folder exists and cannot be read.
    """
    return bool(_found(folder))


def newest_whole(folder: Path, needed: tuple[str, ...], only: int | None = None) -> tuple[Path, Restored]:
    """The newest checkpoint whose needed files match its manifest.

    Args:
        folder: the run's `checkpoints` folder.
        needed: beginnings of the names of the needed files.
        only: the step of the one checkpoint to consider; None: all.

    Raises:
        CheckpointError: there is none.
    """
    if only is not None and only not in steps(folder):
        there = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"There is no checkpoint {only} in {folder}, expected one of: {there}.")
    damaged: list[tuple[int, str]] = []
    for step, path in _found(folder):
        if only not in (None, step):
            continue
        try:
            manifest.verify(path, needed)
        except manifest.DamagedError as error:
            damaged.append((step, str(error)))
            continue
        return path, Restored(
            step, tuple(f"checkpoint {bad} is damaged ({reason}): using {step}" for bad, reason in damaged)
        )
    if not damaged:
        raise CheckpointError(f"No checkpoint in {folder}.\nTrain first, or give the folder of another run.")
    each = "; ".join(f"{step} ({reason})" for step, reason in damaged)
    raise CheckpointError(
        f"Every checkpoint in {folder} is damaged: {each}.\nPut back a copy of the folder, or train in a new one."
    )


def _write(folder: Path, step: int, snapshot: Snapshot) -> Path:
    """Writes a checkpoint under a temporary name, then gives it its final name."""
    unfinished, final = folder / f"{disk.TEMPORARY}{step}-{os.getpid()}", folder / f"{step:010d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        disk.remove_temporary(folder)
        disk.check_space(folder, snapshot)
        unfinished.mkdir()
        disk.check_quota(unfinished, snapshot.train_state)
        contents.write_contents(unfinished, snapshot)
        manifest.write_manifest(unfinished)
        for path in (unfinished, *unfinished.rglob("*")):
            disk.flush(path)
        if final.exists():
            older = folder / f"{final.name}{REPLACED}"
            disk.discard(older)
            final.rename(older)
        unfinished.rename(final)
        disk.flush(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Every checkpoint's step and folder, newest first."""
    if not folder.is_dir():
        return []
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (name[:10], REPLACED not in name))
    return [
        (int(name[:10]), folder / name) for name in reversed(names) if re.fullmatch(rf"\d{{10}}({REPLACED})?", name)
    ]
