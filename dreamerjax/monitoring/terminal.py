"""The progress of a run in the terminal: a live panel, or plain lines where there is no terminal.

`Display.update` only stores the latest numbers. A separate thread draws the panel twice a second, so that its clock
runs while JAX compiles; a thread also prints the plain lines. Nothing here reads or changes the run.
The loss of standard output is handled in runtime/interrupt.py.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from dreamerjax.monitoring.panel import clock_time, panel_body, plain_line
from dreamerjax.monitoring.progress import Pace, Progress

REFRESH_PER_SECOND = 2.0
MAX_WIDTH = 100  # columns; wider is harder to read


class Display:
    """Shows a run's progress: `with Display("cartpole") as display: ... display.update(progress)`.

    On a terminal it is one panel that is redrawn in place; anywhere else (a pipe, a file, a dumb terminal) it is a
    plain line without escape codes every few seconds, after each evaluation and at each new phase. Leaving the context,
    also by an exception or Ctrl-C, restores the terminal.
    """

    def __init__(
        self,
        title: str,
        *,
        console: Console | None = None,
        plain_every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Prepares the display; nothing is shown before the context is entered.

        Args:
            title: on the panel's border, such as "cartpole, seed 0, cpu".
            console: where to show it; standard output by default.
            plain_every_seconds: seconds between two plain lines, at most.
            clock: seconds that never decrease; for tests.
        """
        self._title = title
        self._console = Console() if console is None else console
        self._plain_every_seconds = plain_every_seconds
        self._clock = clock
        self._pace = Pace()
        self._latest: tuple[Progress, float] | None = None  # and when it came
        self._shown: Progress | None = None  # the last plain line
        self._line_at = self._begun = clock()  # when that was printed
        self._lines = threading.RLock()  # held while one is printed
        self._ended = threading.Event()
        self._live: Live | None = None

    @property
    def is_live(self) -> bool:
        """Whether this is a panel (True) or plain lines (False)."""
        return self._console.is_interactive and self._console.encoding.startswith("utf")

    def __enter__(self) -> Self:
        if self.is_live:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND)
            self._live.start()
        else:
            threading.Thread(target=self._print_lines, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._end_lines()

    def update(self, progress: Progress) -> None:
        """Takes the latest numbers; cheap enough to be called after every environment step."""
        with self._lines:
            now = self._clock()
            self._pace.add(progress)
            self._latest = (progress, now)
            if self._live is None and self._line_is_due(progress, now):
                self._print_line(now)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Shows another phase for a while: for work after the run, such as "writing the report"."""
        before = self._latest
        if before is not None:
            progress, updated_at = before
            seconds = progress.wall_seconds + self._clock() - updated_at
            self.update(progress._replace(phase=phase, detail="", wall_seconds=seconds))
        try:
            yield
        finally:
            self._latest = before

    def note(self, text: str) -> None:
        """Prints a line that stays, above the panel, such as "resumed from step 4000"."""
        self._print(text)

    def finish(self, text: str) -> None:
        """Leaves the panel as it is and prints a text below it, such as `summary.final_paragraph`.

        Lines that start with two spaces (commands) are never broken, so that they can be copied.
        """
        was_live = self._live is not None
        self.close()
        self._end_lines()
        for line in text.splitlines():
            self._print(line, wrap=was_live and not line.startswith("  "))

    def close(self) -> None:
        """Restores the terminal: last picture, cursor, streams. Call it before a hard exit; twice is fine."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _print_lines(self) -> None:
        """Prints the lines that are due between calls of `update`; in a thread."""
        seconds = self._plain_every_seconds
        while not self._ended.wait(seconds):
            with self._lines:
                now = self._clock()
                seconds = self._line_at + self._plain_every_seconds - now
                if seconds <= 0 and not self._ended.is_set():
                    self._print_line(now)
                    seconds = self._plain_every_seconds

    def _end_lines(self) -> None:
        self._ended.set()
        with self._lines:  # one that is being printed
            pass

    def _print_line(self, now: float) -> None:
        self._line_at = now
        if self._latest is None:
            self._print(f"{clock_time(now - self._begun)} starting")
            return
        self._shown, updated_at = self._latest
        progress = self._shown._replace(wall_seconds=self._shown.wall_seconds + now - updated_at)
        self._print(plain_line(progress, self._pace.seconds_left(progress)))

    def _line_is_due(self, progress: Progress, now: float) -> bool:
        shown = self._shown
        if shown is None or now - self._line_at >= self._plain_every_seconds:
            return True
        if progress.phase == "evaluating":
            return False  # its result gets a line, not its start
        evaluated = (progress.eval_mean, progress.eval_std) != (shown.eval_mean, shown.eval_std)
        return evaluated or progress.phase != shown.phase

    def _print(self, text: str, *, wrap: bool = False) -> None:
        if not self.is_live:
            # A pipe that is not UTF-8 gets "?" for the curve.
            text = text.encode(self._console.encoding, "replace").decode(self._console.encoding)
        self._console.print(Text(text), soft_wrap=not wrap)

    def _render(self) -> RenderableType:
        """The panel as of now; runs in the drawing thread."""
        if self._latest is None:
            return Text(f"{clock_time(self._clock() - self._begun)} starting", "dim")
        progress, updated_at = self._latest
        width = min(self._console.width, MAX_WIDTH)
        # While JAX compiles, the last update may be old.
        elapsed = progress.wall_seconds + self._clock() - updated_at
        body = panel_body(progress, elapsed, self._pace.seconds_left(progress), width - 4)
        border = "green" if progress.phase == "solved" else "dim"
        return Panel(body, title=Text(self._title, "bold"), title_align="left", width=width, border_style=border)
