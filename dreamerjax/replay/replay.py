"""Stored experience, sampled as time-major batches: a ring of rows, an online queue, latent states."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from dreamerjax.config import ModelConfig, ReplayConfig
from dreamerjax.replay.device import DeviceRing
from dreamerjax.replay.disk import DiskRing
from dreamerjax.replay.latents import Latents
from dreamerjax.replay.online import OnlineQueue
from dreamerjax.replay.ring import Ring
from dreamerjax.replay.saving import Arrays, Meta
from dreamerjax.replay.windows import draw_windows, steps_of
from dreamerjax.types import Batch, PolicyState, Rows, Spaces, StoredLatent


def make_replay(
    config: ReplayConfig,
    spaces: Spaces,
    *,
    num_envs: int,
    seed: int,
    model: ModelConfig,
    sequence_length: int,
    folder: Path,
) -> "Replay":
    """Makes the replay that the settings ask for.

    Args:
        config: its capacity and storage.
        spaces: what the rows hold.
        num_envs: environments that are stepped together.
        seed: of the sampling.
        model: of the latent states, if they are stored.
        sequence_length: T, rows in a window.
        folder: for the files of `DiskRing`.

    Raises:
        ConfigError: the device or the disk has no space for the rows.
    """
    size: dict[str, int] = {"num_envs": num_envs, "capacity": config.capacity}
    if config.storage == "disk":
        ring = DiskRing(spaces, folder=folder, **size)
    else:
        ring = (DeviceRing if config.storage == "device" else Ring)(spaces, **size)
    return Replay(
        ring, seed=seed, context=model if config.context else None, online=sequence_length if config.online else 0
    )


class Replay:
    """The newest rows of every environment, and batches that are drawn from them.

    With a *context*, each row keeps the latent state that was last computed for it, and a window comes with the state
    of the row before it.
    """

    def __init__(
        self,
        ring: Ring,
        *,
        seed: int | np.random.SeedSequence,
        context: ModelConfig | None = None,
        online: int = 0,
    ) -> None:
        """Makes an empty replay.

        Args:
            ring: where the rows are stored; empty.
            seed: of the sampling.
            context: of the model whose latent states are stored with the rows; None: none are.
            online: rows in a window of the online queue, which must be the `sequence_length` drawn; 0: no queue.
        """
        self._ring = ring
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._latents = None if context is None else Latents(ring, context)
        self._before = int(context is not None)  # rows that a window needs before it
        self._queue = OnlineQueue(online, num_envs=ring.num_envs, first=self._before)

    def __len__(self) -> int:
        """Rows stored, over all environments."""
        return self._ring.filled * self._ring.num_envs

    @property
    def rows_added(self) -> int:
        """Rows that were ever added, over all environments."""
        return self._ring.added * self._ring.num_envs

    @property
    def bytes_at_capacity(self) -> int:
        """Memory of the full replay."""
        return self._ring.memory_bytes

    def add(self, rows: Rows) -> None:
        """Stores one step of all environments; when the ring is full, the oldest step is overwritten.

        Raises:
            OSError: the rows are on the disk, and it is full.
        """
        self._ring.write(rows)
        if self._latents is not None:
            self._latents.row_added()
        self._queue.added(self._ring.added)

    def end_streams(self) -> None:
        """Ends every environment's episode at its newest row, as a time limit would.

        For a run that resumes with new environments: their first rows do not follow from the newest ones.
        """
        self._ring.end_streams()

    def keep_latent(self, policy_state: PolicyState) -> None:
        """Stores the policy's latent states after the newest row; nothing without a context."""
        if self._latents is not None:
            self._latents.keep(policy_state)

    def can_sample(self, sequence_length: int) -> bool:
        """Whether there is at least one window of this length."""
        return self._ring.filled >= sequence_length + self._before

    def sample(self, batch_size: int, sequence_length: int, updates: int) -> Batch:
        """Draws windows: first those of the online queue, the rest uniformly.

        Args:
            batch_size: B, windows in one update.
            sequence_length: T, rows in a window.
            updates: U, batches that are drawn at once.

        Returns:
            A batch of numpy arrays, [U, T, B, ...]; all copies of the stored rows.

        Raises:
            ValueError: no environment has `sequence_length` rows yet, and one more before them for a context.
        """
        ring = self._ring
        if not self.can_sample(sequence_length):
            raise ValueError(
                f"The replay holds {ring.filled} rows of each environment, expected the {sequence_length} of a window"
                + (" and one before it." if self._before else ".")
            )
        if self._latents is not None:
            self._latents.write_returned()
        oldest, steps = ring.oldest + self._before, ring.filled - self._before
        windows = draw_windows(
            self._generator,
            (updates, 1, batch_size),
            oldest=oldest,
            steps=steps,
            length=sequence_length,
            num_envs=ring.num_envs,
        )
        self._queue.put_into(windows, oldest=oldest)
        step = steps_of(windows, sequence_length)  # [U, T, B]
        batch = ring.read(step, windows.env)
        if self._latents is None:
            return batch
        self._latents.drawn(step, windows.env)
        return dataclasses.replace(batch, context=self._latents.context_of(windows))

    def refresh(self, latents: StoredLatent | None) -> None:
        """Takes the latent states [U, T, B, ...] that an update computed for the oldest batch without them.

        They may still be computed: they are read one draw later.
        """
        if latents is not None:
            assert self._latents is not None, "the replay has no context"
            self._latents.returned(latents)

    def newest(self, steps: int) -> Batch:
        """The newest rows of every environment, [steps, num_envs, ...], in the order of time; as many as there are."""
        ring = self._ring
        steps = min(steps, ring.filled)
        return ring.read(ring.added - steps + np.arange(steps)[:, None], np.arange(ring.num_envs))

    def peek(self, batch_size: int, sequence_length: int, generator: np.random.Generator) -> Batch:
        """Windows [T, B, ...] without a context, drawn with the caller's generator: the replay does not change."""
        ring = self._ring
        windows = draw_windows(
            generator,
            (batch_size,),
            oldest=ring.oldest,
            steps=ring.filled,
            length=sequence_length,
            num_envs=ring.num_envs,
        )
        return ring.read(steps_of(windows, sequence_length), windows.env)

    def batch_shapes(self, batch_size: int, sequence_length: int, updates: int) -> Batch:
        """Shapes and dtypes of what `sample` will draw, as `jax.ShapeDtypeStruct`s; the replay may be empty."""
        batch = self._ring.shapes((updates, sequence_length, batch_size))
        if self._latents is None:
            return batch
        return dataclasses.replace(batch, context=self._latents.shapes(updates, batch_size))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What `load` needs to continue exactly from here.

        Returns:
            The filled slots by name, [filled, num_envs, ...] (views: write or copy them before the next `add`), with
            the latent states that are on their way back; and a small JSON-able dictionary.
        """
        rows, meta = self._ring.state()
        pending, counts = self._latents.state() if self._latents is not None else ({}, {"drawn": 0, "returned": 0})
        sampling = {"sampling": self._generator.bit_generator.state}
        return rows | pending, meta | sampling | counts | self._queue.state(self._ring.added)

    def load(self, arrays: Arrays, meta: Meta) -> None:
        """Takes over what `state` returned: the next sample is the same as it would have been.

        The saved replay may have another capacity: the newest rows that fit are kept.

        Args:
            arrays: read piece by piece, so they may be memory maps of files.
            meta: the dictionary.

        Raises:
            ValueError: the arrays are of other spaces or another number of environments; nothing is changed.
            ConfigError: the rows are on the disk, and were saved with another storage or capacity.
        """
        self._ring.load(arrays, meta)
        self._generator.bit_generator.state = dict(meta["sampling"])
        if self._latents is not None:
            self._latents.load(arrays, meta)
        self._queue.load(meta, steps=self._ring.added)
