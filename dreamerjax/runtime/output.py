"""Handles the loss of standard output: a closed pipe (`| head`), a closed terminal, a full disk."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

CLOSED_PIPE = 128 + 13  # exit code, as for SIGPIPE in shells
CLOSED_TERMINAL = 128 + 1  # as for SIGHUP
NOT_WRITABLE = 2


class LostOutputError(Exception):
    """Standard output can no longer be written; `exit_code` is the process's exit code."""

    def __init__(self, reason: str, exit_code: int) -> None:
        """Takes a short reason, such as "Broken pipe"."""
        super().__init__(reason)
        self.exit_code = exit_code


class Output:
    """Replaces `sys.stdout`: `with contextlib.redirect_stdout(Output(when_lost)): ...`.

    When a write fails, `when_lost` is called once. Later writes are dropped, so the same error is not raised again in
    libraries that print, or in the interpreter when it flushes the stream at exit.
    """

    def __init__(self, when_lost: Callable[[LostOutputError], None]) -> None:
        """Wraps the current `sys.stdout`.

        Args:
            when_lost: called with the error, in the thread that prints; may raise.
        """
        self.lost: LostOutputError | None = None
        self._when_lost = when_lost
        # `sys.stdout` is None if it was closed before Python started.
        self._file: TextIO = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._is_terminal = not self._file.closed and self._file.isatty()

    def write(self, text: str) -> int:
        """Writes a text, unless the output is lost."""
        self._try(self._file.write, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes several texts, unless the output is lost."""
        self._try(self._file.writelines, lines)

    def flush(self) -> None:
        """Flushes the stream, unless the output is lost."""
        self._try(self._file.flush)

    def isatty(self) -> bool:
        """Whether the stream was a terminal at first: a closed one returns False, which would hide the loss."""
        return self._is_terminal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _try(self, write: Callable[..., Any], *arguments: Any) -> None:
        if self.lost is not None:
            return
        try:
            write(*arguments)
            return
        except LostOutputError as error:  # from a wrapped `Output`
            lost = error
        except OSError as error:
            lost = LostOutputError(error.strerror or str(error), self._exit_code(error))
        except ValueError:
            if not self._file.closed:
                raise  # a character that cannot be encoded
            lost = LostOutputError("it was closed", CLOSED_PIPE)
        self.lost = lost
        silence(self._file)
        self._when_lost(lost)

    def _exit_code(self, error: OSError) -> int:
        if error.errno == errno.EPIPE:
            return CLOSED_PIPE
        return CLOSED_TERMINAL if self._is_terminal and error.errno == errno.EIO else NOT_WRITABLE


def complain(text: str) -> None:
    """Prints a line to standard error, unless it is closed."""
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def complain_in_handler(text: str) -> None:
    """As `complain`, but safe in a signal handler that may interrupt a write to the same stream."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="replace"))


def silence(stream: TextIO) -> None:
    """Redirects a stream's buffered and future output to the null device."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
