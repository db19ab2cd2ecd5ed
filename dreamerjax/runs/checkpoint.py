"""Checkpoints: everything that a run needs to go on, written whole or not at all, and checked before use.

    checkpoints/0000004000/       one folder for each checkpoint, named by environment steps
        train_state/              the TrainState, by orbax
        arrays.npz                the replay's arrays, uncompressed
        host.json                 counters; the family, settings and lineage of the run
        opaque.pkl                bytes of the caller's own, where there are any
        MANIFEST.json             size and SHA-256 of every file above

A checkpoint is written under a name that nobody reads (`.tmp-*`), flushed to the disk and then renamed:
what has its final name is complete. A file that was cut or changed afterwards is found by its checksum,
because orbax itself restores a changed byte without a word; `restore` then takes the next older checkpoint.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import dreamerjax
from dreamerjax.runs.run_folder import different_keys

FORMAT = 1  # of the layout above
_TRAIN_STATE = "train_state"
_ARRAYS = "arrays.npz"
_HOST = "host.json"
_OPAQUE = "opaque.pkl"
_MANIFEST = "MANIFEST.json"
_ALL = ("",)  # beginnings of the names of files
_WEIGHTS = (_HOST, f"{_TRAIN_STATE}/")
_REPLACED = "-replaced"  # a checkpoint whose successor, of the same step, is about to take its name


class Snapshot(NamedTuple):
    """What a checkpoint holds."""

    train_state: Any  # a pytree of arrays: TrainState
    arrays: dict[str, np.ndarray]  # the replay
    host: dict[str, Any]  # what JSON can hold; tuples come back as lists
    opaque: bytes = b""  # kept as it is, never unpickled here


class Restored(NamedTuple):
    """Which checkpoint was read."""

    step: int  # environment steps
    skipped: tuple[str, ...]  # newer checkpoints that are damaged, one sentence each


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read: one or two lines that say what to do."""


class _DamagedError(Exception):
    """Why one checkpoint cannot be trusted."""


def save(folder: Path, step: int, snapshot: Snapshot, *, keep: int) -> Path:
    """Writes a checkpoint, then removes all but the newest `keep`.

    A checkpoint of the same step is replaced. Those of later steps are removed: a run writes an earlier step
    only after it had to go back, and then they belong to a future that it has left.

    Args:
        folder: the run's `checkpoints` folder; it is made if it is missing.
        step: environment steps made.
        snapshot: what to write; the state is copied from its device first.
        keep: how many checkpoints remain, this one included; 1 or more.

    Returns:
        The folder of this checkpoint.

    Raises:
        CheckpointError: no space, no permission or a failing disk. Older checkpoints are as they were.
        ValueError: `keep` or `step` is out of range, or an array is of no use: it is empty (in the train state) or
            holds Python objects (in `arrays`).
        TypeError: `snapshot.host` holds what JSON cannot.
    """
    if keep < 1 or not 0 <= step < 10**10:
        raise ValueError(f"keep is {keep} and step is {step}, expected keep >= 1 and 0 <= step < 10^10.")
    snapshot = snapshot._replace(train_state=jax.device_get(snapshot.train_state))
    for names, leaf in jax.tree_util.tree_leaves_with_path(snapshot.train_state):
        if np.size(leaf) == 0:  # orbax refuses it too, but leaves threads behind
            raise ValueError(f"{'.'.join(_names(names))} is {_describe(leaf)}: it holds no number to write.")
    unfinished = folder / f".tmp-{step}-{os.getpid()}"
    final = folder / f"{step:010d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        _check_space(folder, snapshot)
        unfinished.mkdir()
        _write(unfinished, snapshot)
        if final.exists():
            older = folder / f"{final.name}{_REPLACED}"
            _discard(older)
            final.rename(older)
        unfinished.rename(final)
        _flush(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(
            f"Checkpoint {step} could not be written to {folder}: {reason[:1].lower()}{reason[1:]}.\n"
            "Older checkpoints are intact: free space or correct the permissions, then resume with the same command."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    kept = [path for other, path in _steps(folder) if other <= step and not path.name.endswith(_REPLACED)][:keep]
    for _, path in _steps(folder):
        if path not in kept:
            _discard(path)
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
        weights_only: read (and check) the train state and the counters alone; `arrays` and `opaque` stay empty, and
            `like` need not ask for all that is stored.
        step: the checkpoint of this environment step instead of the newest.

    Returns:
        The snapshot, its train state as arrays on the default device with the dtypes of `like`, `arrays` as files that
        are read when they are used; and which checkpoint it is.

    Raises:
        CheckpointError: there is no checkpoint, all are damaged, it is of another family, or the train state differs
            from `like`.
    """
    path, restored = _newest_good(folder, _WEIGHTS if weights_only else _ALL, step)
    host = _read_host(path)
    stored = host.get("family", {}).get("keys")
    if family is not None and stored is not None and (different := different_keys(stored, family)):
        raise CheckpointError(
            f"Checkpoint {restored.step} is of another environment or architecture: {'; '.join(different)}.\n"
            "Use the settings and the variant that it was trained with, or another run folder."
        )
    train_state = _fit(_read_train_state(path), like, step=restored.step, partly=weights_only)
    if weights_only:
        return Snapshot(train_state, {}, host), restored
    arrays = _map_arrays(path / _ARRAYS)
    opaque = path / _OPAQUE
    return Snapshot(train_state, arrays, host, opaque.read_bytes() if opaque.exists() else b""), restored


def restore_raw(folder: Path) -> tuple[dict[str, Any], Restored]:
    """Reads the train state of the newest checkpoint that is whole, whatever its shapes.

    Returns:
        Nested dicts (lists for tuples) of numpy arrays, named like the fields of TrainState; and which checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    path, restored = _newest_good(folder, _WEIGHTS)
    return _read_train_state(path), restored


def read_host(folder: Path, *, step: int | None = None) -> tuple[dict[str, Any], Restored]:
    """Reads the host.json of the newest checkpoint in which it is whole, or of one step; nothing else is looked at.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    path, restored = _newest_good(folder, (_HOST,), step)
    return _read_host(path), restored


def read_arrays(folder: Path, *, step: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and the host.json of the newest checkpoint in which they are whole, or of one step.

    Raises:
        CheckpointError: there is no checkpoint, or all are damaged.
    """
    path, _ = _newest_good(folder, (_HOST, _ARRAYS), step)
    return _map_arrays(path / _ARRAYS), _read_host(path)


def steps(folder: Path) -> list[int]:
    """The environment steps of all checkpoints, whole or not, in the order of time."""
    return sorted({step for step, _ in _steps(folder)})


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder holds any checkpoint, whole or not.

    Raises:
        OSError: the folder exists and cannot be read.
    """
    return bool(_steps(folder))


def prefixed(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays of one part of a run, named so that those of others do not clash."""
    return {prefix + name: array for name, array in arrays.items()}


def unprefixed(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """What `prefixed` had named, out of all arrays of a checkpoint."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """Every checkpoint's step and folder, newest first."""
    if not folder.is_dir():
        return []
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (name[:10], _REPLACED not in name))
    return [
        (int(name[:10]), folder / name) for name in reversed(names) if re.fullmatch(rf"\d{{10}}({_REPLACED})?", name)
    ]


# Writing


def _write(unfinished: Path, snapshot: Snapshot) -> None:
    """Fills an empty folder and flushes it to the disk."""
    _try_space(unfinished / "space", sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(snapshot.train_state)))
    _write_train_state(unfinished / _TRAIN_STATE, snapshot.train_state)
    np.savez(unfinished / _ARRAYS, allow_pickle=False, **snapshot.arrays)
    (unfinished / _HOST).write_text(json.dumps(snapshot.host, indent=1) + "\n", encoding="utf-8")
    if snapshot.opaque:
        (unfinished / _OPAQUE).write_bytes(snapshot.opaque)
    files = sorted(path for path in unfinished.rglob("*") if path.is_file())
    manifest = {
        "format": FORMAT,
        "dreamerjax": getattr(dreamerjax, "__version__", "unknown"),
        "files": {path.relative_to(unfinished).as_posix(): _fingerprint(path) for path in files},
    }
    (unfinished / _MANIFEST).write_bytes(_seal(manifest))
    for path in (unfinished, *unfinished.rglob("*")):
        _flush(path)


def _write_train_state(path: Path, train_state: Any) -> None:
    """Writes host arrays with orbax; a failed write is an OSError, as it is for any other file."""
    # On a full disk orbax logs every thread's traceback, and then raises the same again.
    with _quiet_orbax(logging.CRITICAL), _checkpointer() as checkpointer:
        try:
            checkpointer.save(path.absolute(), train_state)
            checkpointer.wait_until_finished()
        except ValueError as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def _check_space(folder: Path, snapshot: Snapshot) -> None:
    leaves = [*jax.tree.leaves(snapshot.train_state), *snapshot.arrays.values()]
    needed = 2**20 + sum(np.asarray(leaf).nbytes for leaf in leaves) + len(snapshot.opaque)
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < needed:  # some network disks tell neither
        raise OSError(errno.ENOSPC, f"no space left, {needed / 1e6:.0f} MB needed and {disk.free / 1e6:.0f} MB free")


def _try_space(file: Path, size: int) -> None:
    """Finds out whether so many bytes may be written, for a quota does not show in the free space.

    Orbax writes many arrays at a time; where one fails, the others go on and print that nobody waits for them.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with file.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, size))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # else this disk cannot tell
            raise
    file.unlink()


def _discard(path: Path) -> None:
    """Removes a checkpoint; renamed first, because a removal that is cut short must not look like a damaged one."""
    doomed = path.with_name(f".tmp-{path.name}-discarded")
    with suppress(OSError):
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Removes what an interrupted `save` left; the run folder's lock sees to it that no other one is under way."""
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    if os.name != "posix":  # Windows opens no folders, and no file for reading may be flushed
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Reading


def _newest_good(folder: Path, needed: tuple[str, ...], only: int | None = None) -> tuple[Path, Restored]:
    """The newest checkpoint whose files match their checksums, or the `only` one that will do."""
    damaged: list[tuple[int, str]] = []
    if only is not None and only not in steps(folder):
        there = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"There is no checkpoint {only} in {folder}, expected one of: {there}.")
    for step, path in _steps(folder):
        if only not in (None, step):
            continue
        try:
            _verify(path, needed)
        except _DamagedError as error:
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


def _verify(path: Path, needed: tuple[str, ...]) -> None:
    """Compares the files of a checkpoint whose names begin so with its manifest."""
    try:
        for name, expected in _read_manifest(path)["files"].items():
            if not name.startswith(needed):
                continue
            if not (path / name).is_file():
                raise _DamagedError(f"{name} is missing")
            found = _fingerprint(path / name)
            if found["size"] != expected["size"]:
                raise _DamagedError(f"{name} has {found['size']} of {expected['size']} bytes")
            if found != expected:
                raise _DamagedError(f"{name} has the wrong checksum")
    except OSError as error:
        raise _DamagedError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / _MANIFEST).is_file():
        raise _DamagedError(f"{_MANIFEST} is missing")
    text = (path / _MANIFEST).read_bytes()
    try:
        manifest = json.loads(text)
        manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _DamagedError(f"{_MANIFEST} does not parse") from error
    if _seal(manifest) != text:
        raise _DamagedError(f"{_MANIFEST} has the wrong checksum")
    if manifest["format"] != FORMAT:
        raise _DamagedError(
            f"its format is {manifest['format']}, expected {FORMAT}: dreamerjax {manifest['dreamerjax']} wrote it"
        )
    return manifest


def _map_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz file, read from the disk as they are used: a replay may be large."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            file.seek(member.header_offset + 26)
            name_size, extra_size = (int.from_bytes(file.read(2), "little") for _ in range(2))
            file.seek(name_size + extra_size, os.SEEK_CUR)
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, is_fortran, dtype = read_header(file)
            name, order = member.filename.removesuffix(".npy"), "F" if is_fortran else "C"
            if 0 in shape:
                arrays[name] = np.empty(shape, dtype)
            else:
                arrays[name] = np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order=order)
    return arrays


def _seal(manifest: dict[str, Any]) -> bytes:
    """The manifest as text, with a checksum of its own: a changed byte never gives the same text again."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return (json.dumps(manifest | {"sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _read_host(path: Path) -> dict[str, Any]:
    return json.loads((path / _HOST).read_text(encoding="utf-8"))


def _read_train_state(path: Path) -> Any:
    with _quiet_orbax(logging.WARNING), _checkpointer() as checkpointer:
        return checkpointer.restore((path / _TRAIN_STATE).absolute())


def _fit(stored: Any, like: Any, *, step: int, partly: bool) -> Any:
    """Puts the stored arrays, or `partly` those that are asked for, into the tree of `like`, by their paths."""
    found = {_names(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
    expected, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {_names(path): leaf for path, leaf in expected}
    for names in wanted if partly else dict.fromkeys([*wanted, *found]):
        there, here = found.get(names), wanted.get(names)
        if there is None or here is None or not _compatible(there, here):
            raise CheckpointError(
                f"Checkpoint {step} is of another model: {'.'.join(names)} is {_describe(there)} there, "
                f"expected {_describe(here)}.\n"
                "Use the settings (and --variant) that it was trained with, or another run folder."
            )
    # A copy each: JAX may keep a numpy array's own memory, and that cannot be donated.
    leaves = [jnp.array(found[names], dtype=leaf.dtype, copy=True) for names, leaf in wanted.items()]
    return jax.tree_util.tree_unflatten(structure, leaves)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def _compatible(there: Any, here: Any) -> bool:
    """Same shape, and the same type of number: float32 may become bfloat16, but not an integer."""
    kinds = (jnp.floating, jnp.signedinteger, jnp.unsignedinteger, jnp.bool_)
    same_kind = any(jnp.issubdtype(there.dtype, kind) and jnp.issubdtype(here.dtype, kind) for kind in kinds)
    return tuple(there.shape) == tuple(here.shape) and same_kind


def _describe(leaf: Any) -> str:
    return "missing" if leaf is None else f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _checkpointer() -> Any:
    """Orbax's, imported here: that takes a third of a second, which the start of a run need not wait for."""
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointer()


@contextmanager
def _quiet_orbax(level: int) -> Iterator[None]:
    """Keeps orbax's messages below `level` out of the terminal for the length of one call; it logs through absl."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(max(before, level))
    try:
        yield
    finally:
        logger.setLevel(before)
