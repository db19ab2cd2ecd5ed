"""Traces of JAX's profiler while a run trains, in short chunks: where the time goes, operation by operation."""

from pathlib import Path
from typing import Any

import jax

HOW_TO_OPEN = "open https://ui.perfetto.dev and drag a perfetto_trace.json.gz of it into the page"


class Profiler:
    """Records a few dispatches now and then; does nothing without a folder.

    A trace of a long time would be too large to open, and the first dispatches are not like those that follow.
    """

    def __init__(
        self, folder: Path | None, *, first: int = 4, dispatches: int = 4, every: int = 200, chunks: int = 5
    ) -> None:
        """Records nothing yet.

        Args:
            folder: a folder `chunk-<dispatch>` is made in it for each chunk; None: record nothing.
            first: dispatches to let pass before the first chunk.
            dispatches: length of a chunk.
            every: from the start of one chunk to the start of the next, in dispatches.
            chunks: how many at most.
        """
        self._folder = folder
        self._starts = {first + every * index for index in range(chunks)} if folder else set()
        self._dispatches, self._count, self._ends = dispatches, 0, 0

    def dispatched(self, results: Any) -> None:
        """A dispatch was made; begins or ends a chunk after it if that is due, and waits for `results` only then."""
        self._count += 1
        if self._ends == self._count:
            jax.block_until_ready(results)
            self.close()
        if self._count in self._starts and self._folder is not None:
            jax.block_until_ready(results)
            jax.profiler.start_trace(self._folder / f"chunk-{self._count:06d}", create_perfetto_trace=True)
            self._ends = self._count + self._dispatches

    def close(self) -> None:
        """Ends a chunk that is being recorded."""
        if self._ends:
            self._ends = 0
            jax.profiler.stop_trace()
