"""One command in a child process: `python -m dreamerjax.cli.child [--variant FILE.py:NAME] train ...`.

The child ends with its parent, however that ends: it holds the reading end of a pipe as its standard input, and saves
and stops when that closes.
"""

import os
import signal
import threading

from dreamerjax.cli import command_line


def _end_with_parent() -> None:
    while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold when Python ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    command_line()
