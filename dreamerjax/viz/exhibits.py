"""Films and plots of a run in its page: a few that stand for all, as far as there is room."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreamerjax.viz.film import Filmed
from dreamerjax.viz.page import data_uri
from dreamerjax.viz.video import first_frame

MOST_MOMENTS = 4  # of training, whose films are shown
MOST_BYTES = 15_000_000  # of films, as they stand in the page


class Exhibit(NamedTuple):
    """A film or a plot in the page."""

    env_steps: int
    name: str
    uri: str
    still: str = ""  # of a film: what is shown before it plays

    @property
    def moves(self) -> bool:
        """Whether it is a film."""
        return self.uri.startswith("data:video")


def choose(films: Sequence[Filmed], *, most_bytes: int = MOST_BYTES) -> tuple[list[Filmed], list[Filmed]]:
    """Which films and plots go into the page: those of a few moments spread over training, as far as there is room.

    Args:
        films: of `filmed`, oldest first.
        most_bytes: room for them; the newest come first.

    Returns:
        Those that are shown, and those that are left out, both oldest first.
    """
    moments = sorted({one.env_steps for one in films})
    spread = {moments[i] for i in np.linspace(0, len(moments) - 1, MOST_MOMENTS).round().astype(int)} if films else ()
    shown = set[Filmed]()
    for one in reversed(films):
        size = one.file.stat().st_size * 4 // 3
        if one.env_steps in spread and size <= most_bytes:
            shown.add(one)
            most_bytes -= size
    return [one for one in films if one in shown], [one for one in films if one not in shown]


def exhibit(one: Filmed) -> Exhibit:
    """Reads a film or a plot.

    Raises:
        OSError: it cannot be read.
    """
    still = first_frame(one.file) if one.file.suffix == ".mp4" else b""
    return Exhibit(one.env_steps, one.name, data_uri(one.file.read_bytes(), one.file.suffix), data_uri(still, ".jpg"))
