"""Standard output that can be lost while it is used: `| head` has read enough, a terminal closes, a disk is full."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

CLOSED_PIPE = 128 + 13  # exit codes, as shells have them for SIGPIPE
CLOSED_TERMINAL = 128 + 1  # ... and for SIGHUP
NOT_WRITABLE = 2


class LostOutputError(Exception):
    """Standard output cannot be written any more; the message says why, `exit_code` how the process should end."""

    def __init__(self, reason: str, exit_code: int) -> None:
        """Takes half a sentence."""
        super().__init__(reason)
        self.exit_code = exit_code


class Output:
    """Takes the place of `sys.stdout`: `with contextlib.redirect_stdout(Output(when_lost)): ...`.

    When a write fails, `when_lost` is called, once. From then on everything that is written is dropped, so that nobody
    else meets the same error: not a library that prints, and not the interpreter, which flushes the stream at its end.
    """

    def __init__(self, when_lost: Callable[[LostOutputError], None]) -> None:
        """Stands in for what is `sys.stdout` now.

        Args:
            when_lost: told why; may raise. Any thread that prints may call it.
        """
        self.lost: LostOutputError | None = None
        self._when_lost = when_lost
        # None: it was closed before Python began.
        self._file: TextIO = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self._is_terminal = not self._file.closed and self._file.isatty()

    def write(self, text: str) -> int:
        """Writes a text, if it can."""
        self._try(self._file.write, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes several, if it can."""
        self._try(self._file.writelines, lines)

    def flush(self) -> None:
        """Hands on what was written, if it can."""
        self._try(self._file.flush)

    def isatty(self) -> bool:
        """Whether it is a terminal, or was: one that is gone says no, and then nobody would write to it and notice."""
        return self._is_terminal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _try(self, write: Callable[..., Any], *arguments: Any) -> None:
        if self.lost is not None:
            return
        try:
            write(*arguments)
            return
        except LostOutputError as error:  # of the one that this one stands in for
            lost = error
        except OSError as error:
            lost = LostOutputError(error.strerror or str(error), self._exit_code(error))
        except ValueError:
            if not self._file.closed:
                raise  # a character that the encoding does not have
            lost = LostOutputError("it was closed", CLOSED_PIPE)
        self.lost = lost
        silence(self._file)
        self._when_lost(lost)

    def _exit_code(self, error: OSError) -> int:
        if error.errno == errno.EPIPE:
            return CLOSED_PIPE
        return CLOSED_TERMINAL if self._is_terminal and error.errno == errno.EIO else NOT_WRITABLE


def complain(text: str) -> None:
    """Prints a line to standard error, if that is still there."""
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence(sys.stderr)


def complain_in_handler(text: str) -> None:
    """As `complain`, from within a signal handler, which may have interrupted a write to the same stream."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="replace"))


def silence(stream: TextIO) -> None:
    """Lets what a stream still holds, and what is written to it later, go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
