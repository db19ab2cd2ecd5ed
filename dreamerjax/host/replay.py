"""Stored experience: a numpy ring buffer of rows, sampled straight into time-major batches.

The ring has one *slot* for each step of all environment copies together:

    slot          0     1     2    ...   head-1   head   ...   slots-1
    when full   newer newer newer       newest   oldest        older
    before that oldest ...               newest  empty         empty

A *window* is `sequence_length` slots in a row, in time, of one copy. Windows may cross episode ends
(`is_first` tells the model so), but never the write head: between newest and oldest lies a gap in time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dreamerjax.types import Batch, Rows, Spaces


def as_batch(rows: Rows, take: Callable[[Any], Any]) -> Batch:
    """A batch of what `take` makes of each array of the rows."""
    return Batch(
        obs={name: take(stored) for name, stored in rows.obs.items()},
        prev_action=take(rows.prev_action),
        reward=take(rows.reward),
        is_first=take(rows.is_first),
        is_last=take(rows.is_last),
        is_terminal=take(rows.is_terminal),
    )


class Replay:
    """The newest rows of every environment copy, at most `capacity` in all.

    Memory is touched only as rows come in, so a large capacity costs nothing by itself.
    """

    def __init__(self, spaces: Spaces, *, copies: int, capacity: int, seed: int | np.random.SeedSequence) -> None:
        """Makes an empty replay.

        Args:
            spaces: what the rows hold.
            copies: environment copies that are stepped together.
            capacity: rows, over all copies; what does not divide by `copies` is left unused.
            seed: of the sampling.

        Raises:
            ValueError: `capacity` does not hold one row of each copy.
        """
        if capacity < copies:
            raise ValueError(
                f"The replay's capacity is {capacity}, expected at least one row of each of {copies} copies."
            )
        self._copies = copies
        self._slots = capacity // copies
        self._head = 0  # the slot that is written next
        self._filled = 0  # slots that hold rows; below `slots`, it equals `head`
        self._generator = np.random.Generator(np.random.PCG64(seed))
        lead = (self._slots, copies)
        # The same container as for one step, with one more axis in front: [slots, copies, ...].
        self._rows = Rows(
            obs={spec.name: np.zeros((*lead, *spec.shape), spec.dtype) for spec in spaces.obs},
            prev_action=np.zeros((*lead, spaces.action_size), np.float32),
            reward=np.zeros(lead, np.float32),
            is_first=np.zeros(lead, bool),
            is_last=np.zeros(lead, bool),
            is_terminal=np.zeros(lead, bool),
        )

    def __len__(self) -> int:
        """Rows stored, over all copies."""
        return self._filled * self._copies

    def add(self, rows: Rows) -> None:
        """Stores one step of all copies; when the ring is full, the oldest step goes."""
        stored, head = self._rows, self._head
        for name, value in rows.obs.items():
            stored.obs[name][head] = value
        stored.prev_action[head] = rows.prev_action
        if self._filled:  # an episode that starts anew without an end was interrupted
            stored.is_last[head - 1] |= rows.is_first
        stored.reward[head] = rows.reward
        stored.is_first[head] = rows.is_first
        stored.is_last[head] = rows.is_last
        stored.is_terminal[head] = rows.is_terminal
        self._head = (head + 1) % self._slots
        self._filled = min(self._filled + 1, self._slots)

    def can_sample(self, sequence_length: int) -> bool:
        """Whether there is at least one window of this length."""
        return self._filled >= sequence_length

    def sample(self, batch_size: int, sequence_length: int, updates: int) -> Batch:
        """Draws windows, uniformly and independently over all (start, copy).

        Args:
            batch_size: B, windows in one update.
            sequence_length: T, rows in a window.
            updates: U, batches that are drawn at once.

        Returns:
            A batch of numpy arrays, [U, T, B, ...]; all copies of the stored rows.

        Raises:
            ValueError: no copy has `sequence_length` rows yet.
        """
        if not self.can_sample(sequence_length):
            raise ValueError(
                f"The replay holds {self._filled} rows of each copy, expected the {sequence_length} of a window."
            )
        # Rows are numbered through as slot * copies + copy, so the next row of the same copy is `copies` further.
        # Counted from the oldest slot, every number below `windows` starts one window.
        windows = (self._filled - sequence_length + 1) * self._copies
        start = self._generator.integers(windows, size=(updates, 1, batch_size))
        oldest = (self._head - self._filled) * self._copies
        step = np.arange(sequence_length)[:, None] * self._copies
        index = (oldest + start + step) % (self._slots * self._copies)  # [U, T, B]
        return self._gather(index)

    def batch_shapes(self, batch_size: int, sequence_length: int, updates: int) -> Batch:
        """Shapes and dtypes of what `sample` will draw, as `jax.ShapeDtypeStruct`s; nothing need be stored yet."""
        lead = (updates, sequence_length, batch_size)
        return as_batch(self._rows, lambda stored: jax.ShapeDtypeStruct((*lead, *stored.shape[2:]), stored.dtype))

    def end_streams(self) -> None:
        """Ends every copy's episode at its newest row, as a time limit would.

        For a run that resumes with new environments: what comes next does not follow from the newest row.
        """
        if self._filled:
            self._rows.is_last[self._head - 1] = True

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What `load` needs to go on exactly here.

        Returns:
            The filled slots by name, [filled, copies, ...] (views: write or copy them before the next `add`), and
            a small JSON-able dictionary.
        """
        arrays = {name: stored[: self._filled] for name, stored in self._named().items()}
        return arrays, {"head": self._head, "sampling": self._generator.bit_generator.state}

    def load(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Takes over what `state` returned: the next sample is the one that would have come.

        A replay of another capacity may be loaded, too: the newest rows that fit are kept.

        Raises:
            ValueError: the arrays are of other spaces or another number of copies; nothing is changed then.
        """
        named = self._named()
        expected = {name: (stored.dtype, stored.shape[1:]) for name, stored in named.items()}
        given = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
        lengths = {len(array) for array in arrays.values()}
        if given != expected or len(lengths) != 1:
            raise ValueError(f"The saved replay holds {given}, expected {expected}, all of one length.")
        (length,) = lengths
        kept = min(length, self._slots)
        # In time order from slot 0 on: the ring turns, but what `sample` draws stays the same.
        order = (meta["head"] + np.arange(length - kept, length)) % max(length, 1)
        for name, stored in named.items():
            np.take(arrays[name], order, axis=0, out=stored[:kept], mode="clip")  # clip: straight into `out`
        self._filled = kept
        self._head = kept % self._slots
        self._generator.bit_generator.state = dict(meta["sampling"])

    def _gather(self, index: np.ndarray) -> Batch:
        """The rows with these numbers, slot * copies + copy."""
        return as_batch(self._rows, lambda stored: np.take(stored.reshape(-1, *stored.shape[2:]), index, axis=0))

    def _named(self) -> dict[str, np.ndarray]:
        """The stored arrays under flat names: `reward`, `obs.state`, ..."""
        fields = self._rows._asdict()
        obs = fields.pop("obs")
        return fields | {f"obs.{name}": stored for name, stored in obs.items()}
