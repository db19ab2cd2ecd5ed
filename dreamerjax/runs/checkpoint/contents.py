"""The files of one checkpoint: a train state by orbax, arrays, JSON, bytes."""

import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dreamerjax.runs.checkpoint.snapshot import Snapshot

TRAIN_STATE = "train_state"
ARRAYS = "arrays.npz"
HOST = "host.json"
OPAQUE = "opaque.pkl"


def write_contents(folder: Path, snapshot: Snapshot) -> None:
    """Writes all files of a snapshot, whose train state is on the host, into an empty folder."""
    write_train_state(folder, snapshot.train_state)
    np.savez(folder / ARRAYS, allow_pickle=False, **snapshot.arrays)
    (folder / HOST).write_text(json.dumps(snapshot.host, indent=1) + "\n", encoding="utf-8")
    if snapshot.opaque:
        (folder / OPAQUE).write_bytes(snapshot.opaque)


def write_train_state(folder: Path, train_state: Any) -> None:
    """Writes host arrays with orbax.

    Raises:
        OSError: a write failed; orbax itself raises ValueError then.
    """
    # On a full disk orbax logs the traceback of every thread, and then raises the same error.
    with _quiet_orbax(logging.CRITICAL), _checkpointer() as checkpointer:
        try:
            checkpointer.save((folder / TRAIN_STATE).absolute(), train_state)
            checkpointer.wait_until_finished()
        except ValueError as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def read_train_state(folder: Path) -> Any:
    """The train state as nested dicts (lists for tuples) of numpy arrays."""
    with _quiet_orbax(logging.WARNING), _checkpointer() as checkpointer:
        return checkpointer.restore((folder / TRAIN_STATE).absolute())


def read_host(folder: Path) -> dict[str, Any]:
    """The content of host.json."""
    return json.loads((folder / HOST).read_text(encoding="utf-8"))


def read_opaque(folder: Path) -> bytes:
    """The caller's bytes; empty if there were none."""
    opaque = folder / OPAQUE
    return opaque.read_bytes() if opaque.exists() else b""


def map_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays as memory maps: a replay may be larger than the memory."""
    path, arrays = folder / ARRAYS, {}
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


def _checkpointer() -> Any:
    """Orbax's. Deferred: the import takes a third of a second."""
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointer()


@contextmanager
def _quiet_orbax(level: int) -> Iterator[None]:
    """Hides orbax's messages below `level` during one call; orbax logs through absl."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(max(before, level))
    try:
        yield
    finally:
        logger.setLevel(before)
