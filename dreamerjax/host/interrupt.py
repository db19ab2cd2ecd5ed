"""Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once."""

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """`with Interrupt() as interrupt: ... if interrupt.requested: save and leave`."""

    def __init__(self, before_exit: Callable[[], None] = lambda: None) -> None:
        """No signal so far; handlers are installed on entering the context.

        Args:
            before_exit: called when a second signal ends the process, to give the terminal back.
        """
        self._before_exit = before_exit
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Takes over the signals; only the main thread can."""
        self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._before_exit()
            os._exit(128 + number)
        self.requested = signal.Signals(number)
