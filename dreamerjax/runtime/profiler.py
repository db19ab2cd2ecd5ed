"""Records traces with JAX's profiler during training, in short chunks."""

from pathlib import Path
from typing import Any

import jax

HOW_TO_OPEN = "open https://ui.perfetto.dev and drag one of its perfetto_trace.json.gz files into the page"


class Profiler:
    """Records a few dispatches at intervals; does nothing without a folder.

    A long trace would be too large to open, and the first dispatches are not typical.
    """

    def __init__(
        self, folder: Path | None, *, first: int = 4, dispatches: int = 4, every: int = 200, chunks: int = 5
    ) -> None:
        """Records nothing yet.

        Args:
            folder: where to make a folder `chunk-<dispatch>` for each chunk; None: record nothing.
            first: dispatches before the first chunk.
            dispatches: length of a chunk.
            every: dispatches from the start of one chunk to the start of the next.
            chunks: greatest number of chunks.
        """
        self._folder = folder
        self._starts = {first + every * index for index in range(chunks)} if folder else set()
        self._dispatches, self._count, self._ends = dispatches, 0, 0

    def dispatched(self, results: Any) -> None:
        """Call after each dispatch. Starts or ends a chunk if it is due, and waits for `results` only then."""
        self._count += 1
        if self._ends == self._count:
            jax.block_until_ready(results)
            self.close()
        if self._count in self._starts and self._folder is not None:
            jax.block_until_ready(results)
            jax.profiler.start_trace(self._folder / f"chunk-{self._count:06d}", create_perfetto_trace=True)
            self._ends = self._count + self._dispatches

    def close(self) -> None:
        """Ends the chunk being recorded, if any."""
        if self._ends:
            self._ends = 0
            jax.profiler.stop_trace()
