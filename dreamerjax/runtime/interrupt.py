"""What asks for a clean end: Ctrl-C, SIGTERM, a terminal that closes (SIGHUP), standard output that is lost."""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from dreamerjax.runtime.output import LostOutputError, Output, complain_in_handler

FORCE_ON_SECOND = (signal.SIGINT, signal.SIGTERM)  # the second of these ends at once
STOPPED = tuple(128 + number for number in (1, 2, 13, 15))  # exit codes of a command that was asked to end, and did


def ending_signals() -> list[signal.Signals]:
    """The signals that ask for an end: without SIGHUP on Windows, which has none, and under `nohup`."""
    hang_ups = [number for number in signal.Signals if number.name == "SIGHUP"]
    return [*FORCE_ON_SECOND, *(number for number in hang_ups if signal.getsignal(number) is not signal.SIG_IGN)]


class Interrupt:
    """`with Interrupt() as interrupt: ... if interrupt.requested: save and leave`.

    A closing terminal sends SIGHUP more than once, and a service manager sends it behind SIGTERM: so it never ends the
    process at once.
    """

    def __init__(
        self, before_exit: Callable[[], None] = lambda: None, exit_message: Callable[[], str] = lambda: "Ended at once."
    ) -> None:
        """Nothing was asked so far; handlers are installed on entering the context.

        Args:
            before_exit: called when a second signal ends the process, to give the terminal back.
            exit_message: what is said then: a sentence on what was saved, and what was lost.
        """
        self._before_exit, self._exit_message = before_exit, exit_message
        self.requested: int | None = None  # the exit code to end with, 128 + number of the signal; None: go on
        self.lost_output: LostOutputError | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._signalled = False
        self._output = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Takes over the signals, which only the main thread can, and `sys.stdout`."""
        self._previous = {number: signal.signal(number, self._handle) for number in ending_signals()}
        self._output.enter_context(contextlib.redirect_stdout(Output(self._lose)))  # pyright: ignore[reportArgumentType]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives the signals and `sys.stdout` back."""
        self._output.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in FORCE_ON_SECOND:
            if self._signalled:
                self._end_at_once(128 + number)
            self._signalled = True
        self.requested = self.requested or 128 + number

    def _end_at_once(self, code: int) -> None:
        try:
            self._before_exit()
            complain_in_handler(self._exit_message())
        finally:
            os._exit(code)

    def _lose(self, lost: LostOutputError) -> None:
        self.lost_output = lost
        self.requested = self.requested or lost.exit_code
