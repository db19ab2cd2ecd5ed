"""The ring buffer: rows of all environments, written at its head, in memory.

The ring has one *slot* for each step of all environments:

    slot          0     1     2    ...   head-1   head   ...   slots-1
    when full   newer newer newer       newest   oldest        older
    before that oldest ...               newest  empty         empty

Step n, counted from the first one that was added, is in slot n modulo `slots`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dreamerjax.config import ModelConfig
from dreamerjax.replay.saving import Arrays, Meta, check_columns, in_time_order
from dreamerjax.types import Batch, Rows, Spaces

LOADED_AT_ONCE = 4096  # slots


def as_batch(rows: Rows, take: Callable[[Any], Any]) -> Batch:
    """Applies `take` to each array of the rows."""
    return Batch(
        obs={name: take(stored) for name, stored in rows.obs.items()},
        prev_action=take(rows.prev_action),
        reward=take(rows.reward),
        is_first=take(rows.is_first),
        is_last=take(rows.is_last),
        is_terminal=take(rows.is_terminal),
    )


def row_bytes(spaces: Spaces, context: ModelConfig | None, *, images: bool = True) -> int:
    """Memory of one row.

    Args:
        spaces: what it holds.
        context: of the model whose latent states are stored with the rows; None: none are.
        images: whether these are in memory.
    """
    seen = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in spaces.obs if images or not spec.is_image)
    latent = 0 if context is None else 2 * context.deter + context.groups
    return seen + 4 * spaces.action_size + 4 + 3 + latent  # the reward, and three flags


class Ring:
    """The newest rows of every environment.

    Memory is touched only as rows come in: a large capacity costs nothing by itself.

    Attributes:
        num_envs: environments that are stepped together.
        slots: steps that the ring can hold.
        filled: slots that hold rows.
        added: steps since the replay began.
        rows: the stored rows, [slots, num_envs, ...].
        columns: every stored array by a flat name: `reward`, `obs.state`, ...
    """

    def __init__(self, spaces: Spaces, *, num_envs: int, capacity: int) -> None:
        """Makes an empty ring.

        Args:
            spaces: what the rows hold.
            num_envs: environments that are stepped together.
            capacity: rows, over all environments; a remainder that `num_envs` does not divide is left unused.

        Raises:
            ValueError: `capacity` does not hold one row of each environment.
        """
        if capacity < num_envs:
            raise ValueError(
                f"The replay's capacity is {capacity}, expected at least one row of each of {num_envs} environments."
            )
        self.num_envs, self.slots = num_envs, capacity // num_envs
        self.filled = self.added = 0
        self.columns: dict[str, np.ndarray] = {}
        self.rows = Rows(
            prev_action=self.add_column("prev_action", (spaces.action_size,), np.dtype(np.float32)),
            reward=self.add_column("reward", (), np.dtype(np.float32)),
            is_first=self.add_column("is_first", (), np.dtype(bool)),
            is_last=self.add_column("is_last", (), np.dtype(bool)),
            is_terminal=self.add_column("is_terminal", (), np.dtype(bool)),
            obs={spec.name: self.add_column(f"obs.{spec.name}", spec.shape, spec.dtype) for spec in spaces.obs},
        )

    def add_column(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Adds an array [slots, num_envs, *shape] that is saved and loaded with the rows."""
        self.columns[name] = self._zeros(name, (self.slots, self.num_envs, *shape), dtype)
        return self.columns[name]

    @property
    def oldest(self) -> int:
        """The oldest step that is stored."""
        return self.added - self.filled

    @property
    def memory_bytes(self) -> int:
        """Memory of the full ring."""
        return sum(column.nbytes for column in self.columns.values())

    def slot_of(self, step: Any) -> Any:
        """The slot of a step, or of an array of steps."""
        return step % self.slots

    def write(self, rows: Rows) -> None:
        """Stores one step of all environments; when the ring is full, the oldest step is overwritten."""
        stored, head = self.rows, self.slot_of(self.added)
        for name, value in rows.obs.items():
            stored.obs[name][head] = value
        stored.prev_action[head] = rows.prev_action
        if self.filled:  # a first row after a row that is not the last: the episode was interrupted
            stored.is_last[head - 1] |= rows.is_first
        stored.reward[head] = rows.reward
        stored.is_first[head] = rows.is_first
        stored.is_last[head] = rows.is_last
        stored.is_terminal[head] = rows.is_terminal
        self.added += 1
        self.filled = min(self.filled + 1, self.slots)

    def end_streams(self) -> None:
        """Ends every environment's episode at its newest row, as a time limit would."""
        if self.filled:
            self.rows.is_last[self.slot_of(self.added - 1)] = True

    def read(self, step: np.ndarray, env: np.ndarray) -> Batch:
        """The rows of these steps and environments, whose shapes are broadcast; copies of what is stored."""
        return self._gather(self.slot_of(step) * self.num_envs + env)

    def shapes(self, lead: tuple[int, ...]) -> Batch:
        """Shapes and dtypes of what `read` returns for steps of this shape, as `jax.ShapeDtypeStruct`s."""
        return as_batch(self.rows, lambda stored: jax.ShapeDtypeStruct((*lead, *stored.shape[2:]), stored.dtype))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The filled slots of every column (views), and a JSON-able dictionary."""
        return {name: column[: self.filled] for name, column in self.columns.items()}, {
            "head": self.slot_of(self.added)
        }

    def load(self, arrays: Arrays, meta: Meta) -> None:
        """Takes over what `state` returned; of a larger ring, the newest rows that fit.

        Args:
            arrays: read piece by piece, so they may be memory maps of files.
            meta: the dictionary.

        Raises:
            ValueError: the arrays are of other spaces or another number of environments; nothing is changed.
        """
        length = check_columns(arrays, self.columns)
        kept = min(length, self.slots)
        # The oldest step goes to slot 0. The rows' slots change; what is drawn does not.
        order = in_time_order(meta["head"], length, kept)
        for name, stored in self.columns.items():
            for start in range(0, kept, LOADED_AT_ONCE):
                stop = min(start + LOADED_AT_ONCE, kept)
                stored[start:stop] = arrays[name][order[start:stop]]
        self.added = self.filled = kept

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Memory for the column of this name."""
        return np.zeros(shape, dtype)

    def _gather(self, index: np.ndarray) -> Batch:
        """The rows with these indices, slot * num_envs + environment."""
        return as_batch(self.rows, lambda stored: np.take(stored.reshape(-1, *stored.shape[2:]), index, axis=0))
