"""Safe use of the disk: free space, flushing, removals that tolerate interruption."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np

from dreamerjax.runs.checkpoint.snapshot import Snapshot

TEMPORARY = ".tmp-"  # beginning of the names that are never read


def check_space(folder: Path, snapshot: Snapshot) -> None:
    """Compares the free space with the size of a snapshot.

    Raises:
        OSError: there is too little.
    """
    leaves = [*jax.tree.leaves(snapshot.train_state), *snapshot.arrays.values()]
    needed = 2**20 + sum(np.asarray(leaf).nbytes for leaf in leaves) + len(snapshot.opaque)
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < needed:  # some network disks report neither
        raise OSError(errno.ENOSPC, f"no space left, {needed / 1e6:.0f} MB needed and {disk.free / 1e6:.0f} MB free")


def check_quota(folder: Path, train_state: object) -> None:
    """Allocates the space of a train state and frees it: a quota does not show in the free space.

    Orbax writes many arrays at a time; where one fails, the others continue and print errors.

    Raises:
        OSError: so many bytes may not be written.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    file, size = folder / "space", sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(train_state))
    try:
        with file.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, size))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # else this disk cannot tell
            raise
    file.unlink()


def discard(path: Path) -> None:
    """Removes a folder; renamed first, because an interrupted removal must not look like a damaged checkpoint."""
    doomed = path.with_name(f"{TEMPORARY}{path.name}-discarded")
    with suppress(OSError):
        path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_temporary(folder: Path) -> None:
    """Removes what an interrupted process left; the run folder's lock excludes any other process."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    if os.name != "posix":  # Windows opens no folders, and flushes no file that is open for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
