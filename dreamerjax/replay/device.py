"""A replay with a twin on the device: batches are gathered there, and only new rows ever travel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.config import ConfigError, ModelConfig, ReplayConfig
from dreamerjax.replay.disk import DiskReplay
from dreamerjax.replay.replay import Replay, as_batch
from dreamerjax.types import Array, Batch, Rows, Spaces

CHUNK = 64  # slots in one transfer; always as many, so that one compiled program does


def make_replay(
    config: ReplayConfig,
    spaces: Spaces,
    *,
    num_envs: int,
    seed: int,
    model: ModelConfig,
    sequence_length: int,
    folder: Path,
) -> Replay:
    """The replay that the settings name.

    Args:
        config: its capacity and storage.
        spaces: what the rows hold.
        num_envs: environments that are stepped together.
        seed: of the sampling.
        model: whose latent states are kept, if they are.
        sequence_length: T, rows in a window.
        folder: for the files of `DiskReplay`.

    Raises:
        ConfigError: the device or the disk has no room for the rows.
    """
    options: dict[str, Any] = {
        "num_envs": num_envs,
        "capacity": config.capacity,
        "seed": seed,
        "context": model if config.context else None,
        "online": sequence_length if config.online else 0,
    }
    if config.storage == "disk":
        return DiskReplay(spaces, folder=folder, **options)
    return (DeviceReplay if config.storage == "device" else Replay)(spaces, **options)


class DeviceReplay(Replay):
    """Draws what `Replay` draws, to the bit, into arrays on the device.

    The host keeps its ring: it is what is saved and loaded. New rows are moved when the next batch is drawn. The twin
    takes its memory for all of the capacity at once.
    """

    def __init__(self, spaces: Spaces, *, capacity: int, **options: Any) -> None:
        """Makes an empty replay and its twin; arguments as for `Replay`.

        Raises:
            ValueError: as `Replay`.
            ConfigError: the device has no room for the rows.
        """
        super().__init__(spaces, capacity=capacity, **options)
        self._behind = 0  # newest slots that the twin does not hold yet
        try:
            self._twin: Rows = jax.block_until_ready(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self._rows))
        except jax.errors.JaxRuntimeError as error:
            size = sum(x.nbytes for x in jax.tree.leaves(self._rows)) / 1e9
            raise ConfigError(
                f"replay.storage is device, and the device has no room for the {size:.1f} GB of replay.capacity "
                f"{capacity:,} rows. Give a smaller --replay.capacity, or --replay.storage memory."
            ) from error
        self._write = jax.jit(_write, donate_argnums=0)
        self._take = jax.jit(_take)

    def add(self, rows: Rows) -> None:
        """As `Replay.add`; nothing is moved yet."""
        super().add(rows)
        behind = self._behind or int(rows.is_first.any())  # a first row may end the one before it
        self._behind = min(behind + 1, self._filled)

    def end_streams(self) -> None:
        """As `Replay.end_streams`."""
        super().end_streams()
        self._behind = max(self._behind, min(1, self._filled))  # the newest row has changed

    def load(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """As `Replay.load`; what either kind saved."""
        super().load(arrays, meta)
        self._behind = self._filled

    def _gather(self, index: np.ndarray) -> Batch:
        while self._behind:
            count = min(self._behind, CHUNK)
            slots = (self._added - self._behind + np.arange(CHUNK)) % self._slots
            rows = jax.tree.map(lambda stored, slots=slots: stored[slots], self._rows)
            slots[count:] = self._slots  # there is no such slot: these rows are not written
            self._twin = self._write(self._twin, slots, rows)
            self._behind -= count
        return self._take(self._twin, index)


def _write(twin: Rows, slots: Array, rows: Rows) -> Rows:
    return jax.tree.map(lambda stored, new: stored.at[slots].set(new, mode="drop"), twin, rows)


def _take(twin: Rows, index: Array) -> Batch:
    return as_batch(twin, lambda stored: stored.reshape(-1, *stored.shape[2:])[index])
