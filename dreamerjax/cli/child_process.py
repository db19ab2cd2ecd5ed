"""Runs one command as a child process: `python -m dreamerjax.cli.child_process [--variant FILE.py:NAME] train ...`.

The child's standard input is a pipe from the parent. When the pipe closes, because the parent stops the child or exits
for any reason, the child saves and stops.
"""

import os
import signal
import threading

from dreamerjax.cli import command_line


def _stop_when_stdin_closes() -> None:
    while os.read(0, 1024):  # not sys.stdin: a daemon thread that holds its lock blocks Python's exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_when_stdin_closes, daemon=True).start()
    command_line()
