"""A ring with a copy on the device: batches are gathered there, and only new rows are transferred."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.config import ConfigError
from dreamerjax.replay.ring import Ring, as_batch
from dreamerjax.replay.saving import Arrays, Meta
from dreamerjax.types import Array, Batch, Rows, Spaces

CHUNK = 64  # slots in one transfer: a fixed number needs only one compiled program


class DeviceRing(Ring):
    """Reads what `Ring` reads, to the bit, into arrays on the device.

    The host's arrays stay the ones that are saved and loaded. New rows are transferred at the next read. The copy takes
    its memory for the whole capacity at once.
    """

    def __init__(self, spaces: Spaces, *, capacity: int, **options: Any) -> None:
        """Makes an empty ring and its copy; arguments as for `Ring`.

        Raises:
            ValueError: as `Ring`.
            ConfigError: the device has no memory for the rows.
        """
        super().__init__(spaces, capacity=capacity, **options)
        self._behind = 0  # newest slots that are not on the device yet
        try:
            self._twin: Rows = jax.block_until_ready(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.rows))
        except jax.errors.JaxRuntimeError as error:
            size = sum(x.nbytes for x in jax.tree.leaves(self.rows)) / 1e9
            raise ConfigError(
                f"replay.storage is device, and the device has no room for the {size:.1f} GB of replay.capacity "
                f"{capacity:,} rows. Give a smaller --replay.capacity, or --replay.storage memory."
            ) from error
        self._write = jax.jit(_write, donate_argnums=0)
        self._take = jax.jit(_take)

    def write(self, rows: Rows) -> None:
        """As `Ring.write`; nothing is transferred yet."""
        super().write(rows)
        behind = self._behind or int(rows.is_first.any())  # a first row may change the one before it
        self._behind = min(behind + 1, self.filled)

    def end_streams(self) -> None:
        """As `Ring.end_streams`."""
        super().end_streams()
        self._behind = max(self._behind, min(1, self.filled))  # the newest row has changed

    def load(self, arrays: Arrays, meta: Meta) -> None:
        """As `Ring.load`; a ring in memory may have saved it."""
        super().load(arrays, meta)
        self._behind = self.filled

    def _gather(self, index: np.ndarray) -> Batch:
        while self._behind:
            count = min(self._behind, CHUNK)
            slots = self.slot_of(self.added - self._behind + np.arange(CHUNK))
            rows = jax.tree.map(lambda stored, slots=slots: stored[slots], self.rows)
            slots[count:] = self.slots  # there is no such slot: these rows are not written
            self._twin = self._write(self._twin, slots, rows)
            self._behind -= count
        return self._take(self._twin, index)


def _write(twin: Rows, slots: Array, rows: Rows) -> Rows:
    return jax.tree.map(lambda stored, new: stored.at[slots].set(new, mode="drop"), twin, rows)


def _take(twin: Rows, index: Array) -> Batch:
    return as_batch(twin, lambda stored: stored.reshape(-1, *stored.shape[2:])[index])
