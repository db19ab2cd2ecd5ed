"""Requests to stop cleanly: Ctrl-C, SIGTERM, a closed terminal (SIGHUP), or lost standard output."""

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from dreamerjax.runtime.output import LostOutputError, Output, complain_in_handler

FORCE_ON_SECOND = (signal.SIGINT, signal.SIGTERM)  # a second one exits at once
STOPPED = tuple(128 + number for number in (1, 2, 13, 15))  # exit codes of a command that stopped on request


def ending_signals() -> list[signal.Signals]:
    """The signals that request a stop: SIGHUP is excluded under `nohup` and on Windows, which does not have it."""
    hang_ups = [number for number in signal.Signals if number.name == "SIGHUP"]
    return [*FORCE_ON_SECOND, *(number for number in hang_ups if signal.getsignal(number) is not signal.SIG_IGN)]


class Interrupt:
    """`with Interrupt() as interrupt: ... if interrupt.requested: save and leave`.

    SIGHUP never exits at once: a closing terminal sends it more than once, and a service manager sends it after
    SIGTERM.
    """

    def __init__(
        self, before_exit: Callable[[], None] = lambda: None, exit_message: Callable[[], str] = lambda: "Ended at once."
    ) -> None:
        """Installs no handlers yet: entering the context does.

        Args:
            before_exit: called when a second signal exits the process, to restore the terminal.
            exit_message: returns the message to print then: what was saved, and what was lost.
        """
        self._before_exit, self._exit_message = before_exit, exit_message
        self.requested: int | None = None  # the exit code, 128 + number of the signal; None: no stop requested
        self.lost_output: LostOutputError | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._signalled = False
        self._output = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Installs the signal handlers, in the main thread only, and replaces `sys.stdout`."""
        self._previous = {number: signal.signal(number, self._handle) for number in ending_signals()}
        self._output.enter_context(contextlib.redirect_stdout(Output(self._lose)))  # pyright: ignore[reportArgumentType]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restores the signal handlers and `sys.stdout`."""
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
