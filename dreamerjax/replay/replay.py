"""Stored experience: a numpy ring buffer of rows, sampled straight into time-major batches.

The ring has one *slot* for each step of all environment copies together:

    slot          0     1     2    ...   head-1   head   ...   slots-1
    when full   newer newer newer       newest   oldest        older
    before that oldest ...               newest  empty         empty

A *window* is `sequence_length` slots in a row, in time, of one copy. Windows may cross episode ends
(`is_first` tells the model so), but never the write head: between newest and oldest lies a gap in time.

With a *context*, each row also keeps the latent state that was last computed for it, and a window comes with the one of
the row before it. With an *online queue*, each stretch of new rows, as long as a window, is in one of the next batches.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from dreamerjax.config import ConfigError, ModelConfig
from dreamerjax.types import Batch, PolicyState, Rows, Spaces, StoredLatent

LOADED_AT_ONCE = 4096  # slots
REFRESHES_BEHIND = 1  # draws between one and the return of its latent states: these are never waited for


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


def _as_stored(deter: Any, stoch: Any) -> StoredLatent:
    """From `deter` as integers of two bytes, as which numpy's files know bfloat16."""
    return StoredLatent(deter=deter.view(ml_dtypes.bfloat16), stoch=stoch)


def saved_rows(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], steps: int) -> Rows | None:
    """The newest rows of a saved replay, without a `Replay` to load it.

    Args:
        arrays: as `Replay.state` returned them.
        meta: the dictionary beside them.
        steps: of each copy, at most.

    Returns:
        Rows [steps, copies, ...] in the order of time; None if there are none, or not all of them: images may be in
        files of their own.
    """
    if "reward" not in arrays or "slots" in meta:
        return None
    length = len(arrays["reward"])
    order = (meta["head"] + np.arange(max(0, length - steps), length)) % max(length, 1)
    obs = {name.removeprefix("obs."): array[order] for name, array in arrays.items() if name.startswith("obs.")}
    return Rows(obs=obs, **{name: arrays[name][order] for name in Rows._fields if name != "obs"})


def row_bytes(spaces: Spaces, context: ModelConfig | None, *, images: bool = True) -> int:
    """Memory that one row takes.

    Args:
        spaces: what it holds.
        context: of the model whose latent states are kept with the rows; None: none are.
        images: whether these are in memory.
    """
    seen = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in spaces.obs if images or not spec.is_image)
    latent = 0 if context is None else 2 * context.deter + context.groups
    return seen + 4 * spaces.action_size + 4 + 3 + latent  # the reward, and three flags


def regrouped(
    arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], num_envs: int
) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    """What a replay of one number of copies saved, as one of another number would have.

    The copies' rows are laid end to end, and cut into as many stretches of one length as there are copies now; the
    oldest rows that are left over go. Where the rows of two copies meet, the one episode ends as by a time limit and
    the other begins. Latent states under way and the online queue are dropped.

    Args:
        arrays: as `Replay.state` returned them.
        meta: the dictionary beside them.
        num_envs: environments that are stepped together now.

    Raises:
        ConfigError: the images are in files, whose rows stay where they are.
    """
    length, before = arrays["reward"].shape
    if before == num_envs:
        return arrays, meta
    if "slots" in meta:
        raise ConfigError(
            f"env.num_envs is {num_envs}, expected {before} as before: with replay.storage disk, the rows of each copy "
            "have their place in the files."
        )
    order = (meta["head"] + np.arange(length)) % max(length, 1)
    kept = length * before // num_envs

    rows = {name: array for name, array in arrays.items() if not name.startswith(("drawn", "returned"))}
    streams = {
        name: np.array(np.moveaxis(array[order], 1, 0)).reshape(length * before, *array.shape[2:])
        for name, array in rows.items()
    }
    begins = np.arange(0, length * before, max(length, 1))
    streams["is_last"][begins + length - 1] = True
    streams["is_first"][begins] = True
    streams["prev_action"][begins] = 0

    def cut(stream: np.ndarray) -> np.ndarray:
        newest = stream[len(stream) - kept * num_envs :]
        return np.moveaxis(newest.reshape(num_envs, kept, *stream.shape[1:]), 0, 1)

    regrouped_arrays = {name: cut(stream) for name, stream in streams.items()}
    return regrouped_arrays, {**meta, "head": 0, "drawn": 0, "returned": 0, "queue": []}


class _Latents(NamedTuple):
    """One latent state for each row, [slots, copies, ...]."""

    deter: np.ndarray  # uint16, the bits of bfloat16
    stoch: np.ndarray  # uint8, as in `StoredLatent`


class _Drawn(NamedTuple):
    """Rows whose latent states are on their way back."""

    step: np.ndarray  # [U, T, B] steps since the replay began
    copy: np.ndarray  # [U, 1, B]


class Replay:
    """The newest rows of every environment copy, at most `capacity` in all.

    Memory is touched only as rows come in, so a large capacity costs nothing by itself.
    """

    def __init__(
        self,
        spaces: Spaces,
        *,
        num_envs: int,
        capacity: int,
        seed: int | np.random.SeedSequence,
        context: ModelConfig | None = None,
        online: int = 0,
    ) -> None:
        """Makes an empty replay.

        Args:
            spaces: what the rows hold.
            num_envs: environments that are stepped together.
            capacity: rows, over all copies; what does not divide by `copies` is left unused.
            seed: of the sampling.
            context: of the model whose latent states are kept with the rows; None: none are.
            online: rows in a window of the online queue, which must be the `sequence_length` drawn; 0: no queue.

        Raises:
            ValueError: `capacity` does not hold one row of each copy.
        """
        if capacity < num_envs:
            raise ValueError(
                f"The replay's capacity is {capacity}, expected at least one row of each of {num_envs} copies."
            )
        self._num_envs = num_envs
        self._slots = capacity // num_envs
        self._filled = 0  # slots that hold rows
        self._added = 0  # steps since the replay began; step n is in slot n modulo `slots`
        self._generator = np.random.Generator(np.random.PCG64(seed))
        lead = (self._slots, num_envs)
        # The same container as for one step, with one more axis in front: [slots, copies, ...].
        self._rows = Rows(
            obs={spec.name: self._zeros(f"obs.{spec.name}", (*lead, *spec.shape), spec.dtype) for spec in spaces.obs},
            prev_action=np.zeros((*lead, spaces.action_size), np.float32),
            reward=np.zeros(lead, np.float32),
            is_first=np.zeros(lead, bool),
            is_last=np.zeros(lead, bool),
            is_terminal=np.zeros(lead, bool),
        )
        self._latents = context and _Latents(
            deter=np.zeros((*lead, context.deter), np.uint16), stoch=np.zeros((*lead, context.groups), np.uint8)
        )
        self._drawn: deque[_Drawn] = deque()
        self._returned: deque[StoredLatent] = deque()  # for the oldest of `drawn`
        self._online, self._online_next = online, online + bool(context)  # steps when the next windows are complete
        self._queue: deque[tuple[int, int]] = deque()  # (first step, copy)

    def __len__(self) -> int:
        """Rows stored, over all copies."""
        return self._filled * self._num_envs

    @property
    def rows_added(self) -> int:
        """Rows that have come in, over all copies; those that were overwritten count, too."""
        return self._added * self._num_envs

    @property
    def bytes_at_capacity(self) -> int:
        """Memory that the replay takes when it is full."""
        return sum(stored.nbytes for stored in self._named().values())

    def add(self, rows: Rows) -> None:
        """Stores one step of all copies; when the ring is full, the oldest step goes."""
        stored, head = self._rows, self._added % self._slots
        for name, value in rows.obs.items():
            stored.obs[name][head] = value
        stored.prev_action[head] = rows.prev_action
        if self._filled:  # an episode that starts anew without an end was interrupted
            stored.is_last[head - 1] |= rows.is_first
        stored.reward[head] = rows.reward
        stored.is_first[head] = rows.is_first
        stored.is_last[head] = rows.is_last
        stored.is_terminal[head] = rows.is_terminal
        if self._latents is not None:
            self._latents.stoch[head] = 0
        self._added += 1
        self._filled = min(self._filled + 1, self._slots)
        if self._online and self._added >= self._online_next:
            first = self._added - self._online
            self._queue.extend((first, copy) for copy in range(self._num_envs))
            self._online_next += self._online

    def keep_latent(self, policy_state: PolicyState) -> None:
        """Keeps what the policy believes since it saw the newest row, of all copies; nothing without a context."""
        if self._latents is None:
            return
        latent = policy_state.latent
        head = (self._added - 1) % self._slots
        self._latents.deter[head] = np.asarray(latent.deter).astype(ml_dtypes.bfloat16).view(np.uint16)
        self._latents.stoch[head] = np.asarray(latent.stoch).argmax(-1) + 1

    def can_sample(self, sequence_length: int) -> bool:
        """Whether there is at least one window of this length."""
        return self._filled >= sequence_length + (self._latents is not None)

    def sample(self, batch_size: int, sequence_length: int, updates: int) -> Batch:
        """Draws windows, uniformly and independently over all (start, copy); those of the online queue go first.

        Args:
            batch_size: B, windows in one update.
            sequence_length: T, rows in a window.
            updates: U, batches that are drawn at once.

        Returns:
            A batch of numpy arrays, [U, T, B, ...]; all copies of the stored rows.

        Raises:
            ValueError: no copy has `sequence_length` rows yet, and one before them for a context.
        """
        if not self.can_sample(sequence_length):
            raise ValueError(
                f"The replay holds {self._filled} rows of each copy, expected the {sequence_length} of a window"
                + ("." if self._latents is None else " and one before it.")
            )
        self._apply_returned()
        before = int(self._latents is not None)
        oldest = self._added - self._filled + before
        # Counted from the oldest, every number below `windows` starts one window.
        windows = (self._filled - sequence_length + 1 - before) * self._num_envs
        start = self._generator.integers(windows, size=(updates, 1, batch_size))
        first, copy = oldest + start // self._num_envs, start % self._num_envs
        for update in range(updates):
            for place in range(batch_size):
                if not self._queue:
                    break
                queued = self._queue.popleft()
                if queued[0] >= oldest:  # else it was overwritten before its turn came
                    first[update, 0, place], copy[update, 0, place] = queued
        step = first + np.arange(sequence_length)[:, None]  # [U, T, B]
        batch = self._gather(step % self._slots * self._num_envs + copy)
        if self._latents is None:
            return batch
        self._drawn.append(_Drawn(step, copy))
        slot = (first[:, 0] - 1) % self._slots
        deter, stoch = self._latents.deter[slot, copy[:, 0]], self._latents.stoch[slot, copy[:, 0]]
        return dataclasses.replace(batch, context=_as_stored(deter, stoch))

    def newest(self, steps: int) -> Batch:
        """The newest rows of every copy, [steps, copies, ...], in the order of time; fewer if there are not so many."""
        steps = min(steps, self._filled)
        slots = (self._added - steps + np.arange(steps)[:, None]) % self._slots
        return self._gather(slots * self._num_envs + np.arange(self._num_envs))

    def look(self, batch_size: int, sequence_length: int, generator: np.random.Generator) -> Batch:
        """Windows [T, B, ...] without a context, drawn with a generator of the caller's: it changes nothing here."""
        starts = (self._filled - sequence_length + 1) * self._num_envs
        start = generator.integers(starts, size=batch_size)
        first = self._added - self._filled + start // self._num_envs
        slots = (first + np.arange(sequence_length)[:, None]) % self._slots
        return self._gather(slots * self._num_envs + start % self._num_envs)

    def refresh(self, latents: StoredLatent | None) -> None:
        """Takes back the latent states [U, T, B, ...] of the oldest batch that has not got them.

        They may still be under way: they are read one draw later.
        """
        if latents is not None:
            self._returned.append(latents)

    def batch_shapes(self, batch_size: int, sequence_length: int, updates: int) -> Batch:
        """Shapes and dtypes of what `sample` will draw, as `jax.ShapeDtypeStruct`s; nothing need be stored yet."""
        lead = (updates, sequence_length, batch_size)
        batch = as_batch(self._rows, lambda stored: jax.ShapeDtypeStruct((*lead, *stored.shape[2:]), stored.dtype))
        if self._latents is None:
            return batch
        deter, stoch = (stored[0, :1].repeat(updates * batch_size, 0) for stored in self._latents)
        context = _as_stored(*(part.reshape(updates, batch_size, -1) for part in (deter, stoch)))
        context = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), context)
        return dataclasses.replace(batch, context=context)

    def end_streams(self) -> None:
        """Ends every copy's episode at its newest row, as a time limit would.

        For a run that resumes with new environments: what comes next does not follow from the newest row.
        """
        if self._filled:
            self._rows.is_last[(self._added - 1) % self._slots] = True

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What `load` needs to go on exactly here.

        Returns:
            The filled slots by name, [filled, copies, ...] (views: write or copy them before the next `add`), with the
            latent states that are on their way back; and a small JSON-able dictionary.
        """
        arrays = {name: stored[: self._filled] for name, stored in self._named().items()}
        for number, drawn in enumerate(self._drawn):
            arrays |= {f"drawn{number}.age": self._added - drawn.step, f"drawn{number}.copy": drawn.copy}
        for number, latents in enumerate(self._returned):
            deter = np.asarray(latents.deter).view(np.uint16)
            arrays |= {f"returned{number}.deter": deter, f"returned{number}.stoch": np.asarray(latents.stoch)}
        meta = {
            "head": self._added % self._slots,
            "sampling": self._generator.bit_generator.state,
            "drawn": len(self._drawn),
            "returned": len(self._returned),
            "online_in": self._online_next - self._added,
            "queue": [(self._added - first, copy) for first, copy in self._queue],
        }
        return arrays, meta

    def load(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Takes over what `state` returned: the next sample is the one that would have come.

        A replay of another capacity may be loaded, too: the newest rows that fit are kept.

        Args:
            arrays: they are read piece by piece, so they may well be files.
            meta: the dictionary.

        Raises:
            ValueError: the arrays are of other spaces or another number of copies; nothing is changed then.
        """
        named = self._named()
        length = self._check(named, arrays)
        kept = min(length, self._slots)
        # In time order from slot 0 on: the ring turns, but what `sample` draws stays the same.
        order = (meta["head"] + np.arange(length - kept, length)) % max(length, 1)
        for name, stored in named.items():
            for start in range(0, kept, LOADED_AT_ONCE):
                stop = min(start + LOADED_AT_ONCE, kept)
                stored[start:stop] = arrays[name][order[start:stop]]
        self._take_over(arrays, meta, added=kept)
        self._filled = kept

    def _check(self, named: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> int:
        """Refuses arrays of other rows; returns how many slots they fill."""
        expected = {name: (stored.dtype, stored.shape[1:]) for name, stored in named.items()}
        rows = {name: array for name, array in arrays.items() if not name.startswith(("drawn", "returned"))}
        given = {name: (array.dtype, array.shape[1:]) for name, array in rows.items()}
        lengths = {len(array) for array in rows.values()}
        if given != expected or len(lengths) != 1:
            raise ValueError(f"The saved replay holds {given}, expected {expected}, all of one length.")
        return lengths.pop()

    def _take_over(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], *, added: int) -> None:
        """Everything of a saved replay but its rows, the newest of which now counts as step `added - 1`."""
        self._added = added
        self._generator.bit_generator.state = dict(meta["sampling"])
        self._drawn = deque(
            _Drawn(added - arrays[f"drawn{number}.age"], np.asarray(arrays[f"drawn{number}.copy"]))
            for number in range(meta["drawn"])
        )
        self._returned = deque(
            _as_stored(*(np.asarray(arrays[f"returned{number}.{part}"]) for part in _Latents._fields))
            for number in range(meta["returned"])
        )
        self._online_next = added + meta["online_in"]
        self._queue = deque((added - age, copy) for age, copy in meta["queue"])

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Room for the observations of this name."""
        return np.zeros(shape, dtype)

    def _apply_returned(self) -> None:
        """Writes the latent states that have come back to their rows, unless these were overwritten."""
        assert self._latents is not None or not self._returned
        while self._latents is not None and len(self._returned) > REFRESHES_BEHIND:
            drawn, latents = self._drawn.popleft(), self._returned.popleft()
            there = np.broadcast_to(drawn.step >= self._added - self._filled, drawn.step.shape)
            slot, copy = (drawn.step % self._slots)[there], np.broadcast_to(drawn.copy, there.shape)[there]
            self._latents.deter[slot, copy] = np.asarray(latents.deter).view(np.uint16)[there]
            self._latents.stoch[slot, copy] = np.asarray(latents.stoch)[there]

    def _gather(self, index: np.ndarray) -> Batch:
        """The rows with these numbers, slot * copies + copy."""
        return as_batch(self._rows, lambda stored: np.take(stored.reshape(-1, *stored.shape[2:]), index, axis=0))

    def _named(self) -> dict[str, np.ndarray]:
        """The stored arrays under flat names: `reward`, `obs.state`, ..."""
        fields = self._rows._asdict()
        obs = fields.pop("obs")
        latents = {}
        if self._latents is not None:
            latents = {"latent.deter": self._latents.deter, "latent.stoch": self._latents.stoch}
        return fields | {f"obs.{name}": stored for name, stored in obs.items()} | latents
