"""A ring whose images are files in the run folder. Disk space, not memory, limits its size.

The operating system caches frequent reads. The files are the ring itself: a checkpoint contains only the other
columns, and a resumed run opens the files again. If a run was killed, it may have overwritten its oldest rows after
its last checkpoint. These rows are then missing.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from dreamerjax.config import ConfigError
from dreamerjax.replay.file_names import file_name
from dreamerjax.replay.ring import Ring
from dreamerjax.replay.saving import Arrays, Meta, check_columns
from dreamerjax.types import Rows, Spaces

SLOTS_AT_ONCE = 64  # whose disk space is allocated together


class DiskRing(Ring):
    """Reads what `Ring` reads."""

    def __init__(self, spaces: Spaces, *, folder: Path, num_envs: int, capacity: int) -> None:
        """Makes an empty ring; other arguments as for `Ring`.

        Args:
            spaces: what the rows hold.
            folder: of the files, which take no space before they are filled; those of an earlier process are reused,
                see `load`.
            num_envs: environments that are stepped together.
            capacity: rows, over all environments.

        Raises:
            ValueError: as `Ring`.
            ConfigError: the disk has no space for the files, or there are files of another size.
        """
        self._folder, self._files, self._block = folder, dict[str, np.memmap](), -1
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(spaces, num_envs=num_envs, capacity=capacity)
        self._steps = self._file("steps", (self.slots,), np.dtype(np.int64))  # which step of the run each slot holds
        missing = sum(file.nbytes for file in self._files.values()) - sum(map(_allocated, self._folder.iterdir()))
        free = shutil.disk_usage(folder).free
        if missing > free:
            raise ConfigError(
                f"replay.storage is disk, and its {missing / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB that "
                f"are free in {folder}. Give a smaller --replay.capacity, or a --run-dir on a larger disk."
            )

    @property
    def memory_bytes(self) -> int:
        """Memory of the full ring, without the files."""
        return super().memory_bytes - sum(file.nbytes for file in self._files.values())

    def write(self, rows: Rows) -> None:
        """As `Ring.write`.

        Raises:
            OSError: the disk is full.
        """
        head = self.slot_of(self.added)
        self._reserve(head)
        self._steps[head] = self.added
        super().write(rows)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """As `Ring.state`, without what is in the files."""
        for file in (*self._files.values(), self._steps):
            file.flush()
        _, meta = super().state()
        used = min(self.added, self.slots)  # more than `filled` where rows were lost: the others stay in their slots
        arrays = {name: column[:used] for name, column in self.columns.items() if name not in self._files}
        return arrays, meta | {"added": self.added, "filled": self.filled, "slots": self.slots}

    def load(self, arrays: Arrays, meta: Meta) -> None:
        """Takes over what `state` returned, and the rows in the files that are not newer.

        Raises:
            ValueError: the arrays are of other spaces or another number of environments.
            ConfigError: they were saved with another storage or capacity.
        """
        if meta.get("slots") != self.slots:
            raise ConfigError(
                "replay.storage is disk, and the run was saved with replay.storage memory or another replay.capacity. "
                "Give the settings that it had."
            )
        added, filled = meta["added"], meta["filled"]
        used = len(arrays["reward"])
        check_columns({**arrays, **{name: file[:used] for name, file in self._files.items()}}, self.columns)
        for name, stored in self.columns.items():
            if name not in self._files:
                stored[:used] = arrays[name]
        steps = np.arange(added - filled, added)
        overwritten = np.flatnonzero(self._steps[self.slot_of(steps)] != steps)
        self.added = added
        self.filled = filled - (int(overwritten[-1]) + 1 if len(overwritten) else 0)

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if dtype != np.uint8 or len(shape) != 5:  # [slots, num_envs, height, width, channels]
            return super()._zeros(name, shape, dtype)
        self._files[name] = self._file(name, shape, dtype)
        return self._files[name]

    def _reserve(self, slot: int) -> None:
        """Allocates disk space for this slot and some more: a write to a file without space would kill the process."""
        block = slot // SLOTS_AT_ONCE
        if block == self._block or not hasattr(os, "posix_fallocate"):
            return
        begin, end = block * SLOTS_AT_ONCE, min((block + 1) * SLOTS_AT_ONCE, self.slots)
        for file in (*self._files.values(), self._steps):
            with Path(str(file.filename)).open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), begin * file[0].nbytes, (end - begin) * file[0].nbytes)
        self._block = block

    def _file(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
        path = self._folder / f"{file_name(name)}.ring"
        size = int(np.prod(shape)) * dtype.itemsize
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(size)
        elif path.stat().st_size != size:
            raise ConfigError(
                f"{path} holds images of a replay with another replay.capacity or env.num_envs. Give the settings that "
                f"it had. To start over, delete the folder {self._folder}."
            )
        return np.memmap(path, dtype, "r+", shape=shape)


def _allocated(path: Path) -> int:
    """Bytes of a file that are allocated on the disk."""
    blocks = getattr(path.stat(), "st_blocks", None)
    return path.stat().st_size if blocks is None else 512 * blocks
