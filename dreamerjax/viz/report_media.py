"""Selects the films and plots of a run for its report, within a size limit, and reads them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreamerjax.viz.film import Filmed
from dreamerjax.viz.page import data_uri
from dreamerjax.viz.video import first_frame

MAX_CHECKPOINTS = 4  # points of training whose films are shown
MAX_BYTES = 15_000_000  # of films, encoded in base64


class Media(NamedTuple):
    """A film or a plot in the report."""

    env_steps: int
    name: str
    uri: str
    still: str = ""  # of a film: its first frame, shown before it plays

    @property
    def is_film(self) -> bool:
        """Whether it is a film."""
        return self.uri.startswith("data:video")


def select_media(films: Sequence[Filmed], *, max_bytes: int = MAX_BYTES) -> tuple[list[Filmed], list[Filmed]]:
    """Selects films and plots from a few steps spread over training; the newest have priority.

    Args:
        films: of `filmed`, oldest first.
        max_bytes: limit of their total size in base64.

    Returns:
        The selected ones and the others, both oldest first.
    """
    steps = sorted({one.env_steps for one in films})
    spread = {steps[i] for i in np.linspace(0, len(steps) - 1, MAX_CHECKPOINTS).round().astype(int)} if films else ()
    shown = set[Filmed]()
    for one in reversed(films):
        size = one.file.stat().st_size * 4 // 3
        if one.env_steps in spread and size <= max_bytes:
            shown.add(one)
            max_bytes -= size
    return [one for one in films if one in shown], [one for one in films if one not in shown]


def read_media(one: Filmed) -> Media:
    """Reads a film or a plot.

    Raises:
        OSError: the file cannot be read.
    """
    still = first_frame(one.file) if one.file.suffix == ".mp4" else b""
    return Media(one.env_steps, one.name, data_uri(one.file.read_bytes(), one.file.suffix), data_uri(still, ".jpg"))
