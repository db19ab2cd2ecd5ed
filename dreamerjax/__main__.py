"""`python -m dreamerjax`: the same as `dreamerjax` and `python run.py`."""

import signal
from collections.abc import Callable
from typing import NoReturn


def import_command_line() -> Callable[[], NoReturn]:
    """Imports the program, which takes a second. Ctrl-C then ends the process without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not under `nohup`, for example
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from dreamerjax.cli import command_line
    finally:
        signal.signal(signal.SIGINT, handler)
    return command_line


def main() -> NoReturn:
    """Runs the command in `sys.argv` and exits."""
    import_command_line()()


if __name__ == "__main__":
    main()
