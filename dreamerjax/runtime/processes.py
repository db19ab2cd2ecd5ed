"""Runs this program's commands in separate processes."""

import os
import sys
from pathlib import Path

HOME = Path(__file__).parents[2]  # the folder that contains the package


def own_command(*arguments: str, ends_with_parent: bool = False) -> list[str]:
    """The command line that runs one of this program's commands in another process.

    Args:
        arguments: such as "bench", "--json".
        ends_with_parent: whether it saves and stops when its standard input, a pipe, closes.
    """
    return [sys.executable, "-m", "dreamerjax.cli.child_process" if ends_with_parent else "dreamerjax", *arguments]


def own_environment() -> dict[str, str]:
    """Environment variables for another process to import this package from any folder."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))}
