"""A replay whose images lie in files of the run folder: as many as the disk holds, not the memory.

The operating system keeps in memory what is drawn often. The files are the ring itself: a checkpoint holds only the
rest of the rows, and a resumed run finds its images where they were. Rows that a killed run wrote after its last
checkpoint took the place of the oldest ones, which are missing then.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamerjax.config import ConfigError
from dreamerjax.replay.file_names import file_name
from dreamerjax.replay.replay import Replay
from dreamerjax.types import Rows, Spaces

SLOTS_AT_ONCE = 64  # whose room on the disk is taken together


class DiskReplay(Replay):
    """Draws what `Replay` draws."""

    def __init__(self, spaces: Spaces, *, folder: Path, capacity: int, **options: Any) -> None:
        """Makes an empty replay; other arguments as for `Replay`.

        Args:
            spaces: what the rows hold.
            folder: for the files, which take no room before they are filled; those of an earlier process are taken
                over, see `load`.
            capacity: rows, over all copies.
            options: as for `Replay`.

        Raises:
            ValueError: as `Replay`.
            ConfigError: the disk has no room for them.
        """
        self._folder, self._files, self._block = folder, dict[str, np.memmap](), -1
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(spaces, capacity=capacity, **options)
        self._steps = self._file("steps", (self._slots,), np.dtype(np.int64))  # which step of the run each slot holds
        missing = sum(file.nbytes for file in self._files.values()) - sum(map(_allocated, self._folder.iterdir()))
        free = shutil.disk_usage(folder).free
        if missing > free:
            raise ConfigError(
                f"replay.storage is disk, and its {missing / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB that "
                f"are free in {folder}. Give a smaller --replay.capacity, or a --run-dir on a larger disk."
            )

    @property
    def bytes_at_capacity(self) -> int:
        """Memory that the replay takes when it is full, the files left out."""
        return super().bytes_at_capacity - sum(file.nbytes for file in self._files.values())

    def add(self, rows: Rows) -> None:
        """As `Replay.add`.

        Raises:
            OSError: the disk has become full.
        """
        self._take_room(self._added % self._slots)
        self._steps[self._added % self._slots] = self._added
        super().add(rows)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As `Replay.state`, without what is in the files."""
        for file in (*self._files.values(), self._steps):
            file.flush()
        arrays, meta = super().state()
        arrays = {name: array for name, array in arrays.items() if name not in self._files}
        return arrays, meta | {"added": self._added, "filled": self._filled, "slots": self._slots}

    def load(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Takes over what `state` returned, and of the rows in the files those that were there already.

        Raises:
            ValueError: the arrays are of other spaces, or another number of copies.
            ConfigError: they are of a replay in memory, or of another capacity.
        """
        if meta.get("slots") != self._slots:
            raise ConfigError(
                "replay.storage is disk, and the run was saved with replay.storage memory or another replay.capacity. "
                "Give the settings that it had."
            )
        named, added, filled = self._named(), meta["added"], meta["filled"]
        views = {name: self._files[name][:filled] for name in self._files}
        self._check(named, {**arrays, **views})
        for name, stored in named.items():
            if name not in self._files:
                stored[:filled] = arrays[name]
        steps = np.arange(added - filled, added)
        overwritten = np.flatnonzero(self._steps[steps % self._slots] != steps)
        self._take_over(arrays, meta, added=added)
        self._filled = filled - (int(overwritten[-1]) + 1 if len(overwritten) else 0)

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype != np.uint8 or len(shape) != 5:  # [slots, copies, height, width, channels]
            return super()._zeros(name, shape, dtype)
        self._files[name] = self._file(name, shape, dtype)
        return self._files[name]

    def _take_room(self, slot: int) -> None:
        """Takes the room of this slot and some more: a row that is stored where there is none kills the process."""
        block = slot // SLOTS_AT_ONCE
        if block == self._block or not hasattr(os, "posix_fallocate"):
            return
        begin, end = block * SLOTS_AT_ONCE, min((block + 1) * SLOTS_AT_ONCE, self._slots)
        for file in (*self._files.values(), self._steps):
            with Path(str(file.filename)).open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), begin * file[0].nbytes, (end - begin) * file[0].nbytes)
        self._block = block

    def _file(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
        path = self._folder / f"{file_name(name)}.ring"
        size = int(np.prod(shape)) * dtype.itemsize
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                file.truncate(size)
        return np.memmap(path, dtype, "r+", shape=shape)


def _allocated(path: Path) -> int:
    """Bytes of a file that really take room on the disk."""
    blocks = getattr(path.stat(), "st_blocks", None)
    return path.stat().st_size if blocks is None else 512 * blocks
