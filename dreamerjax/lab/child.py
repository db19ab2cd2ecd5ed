"""One training in a child process: `python -m dreamerjax.lab.child [--variant FILE.py:NAME] train ...`.

A *variant* is a function that changes the program before it runs, for experiments about code rather than settings: a
known bug, a planted fault. It lives beside the experiment, not in the library.

The child ends with its parent, however that ends: it holds the reading end of a pipe as its standard input, and saves
and stops when that closes.
"""

import importlib.util
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from dreamerjax.config import ConfigError
from dreamerjax.host import programs

ROOT = Path(__file__).parents[2]  # where a variant's file is looked for


def load_variant(name: str) -> Callable[[], None]:
    """The function that `FILE.py:NAME` names.

    Raises:
        ConfigError: there is no such file or function.
    """
    file, _, function = name.rpartition(":")
    path = ROOT / file
    spec = importlib.util.spec_from_file_location("variant", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"The variant `{name}` names no file, expected such as experiments/variants.py:NAME.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        known = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == "variant"]
        raise ConfigError(f"{path} has no function `{function}`, expected one of {', '.join(known)}.")
    return getattr(module, function)


def _end_with_parent() -> None:
    while os.read(0, 1024):  # not through sys.stdin, whose lock a thread must not hold when Python ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Applies the variant, then runs the command as run.py would."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if arguments[0] == "--variant":
        programs.trace_anew()  # those that are stored know nothing of a variant
        load_variant(arguments[1])()
        arguments = arguments[2:]
    sys.argv = [str(ROOT / "run.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
