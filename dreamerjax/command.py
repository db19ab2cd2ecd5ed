"""The command that starts this program."""

import sys
from pathlib import Path


def command() -> str:
    """`dreamerjax` where it was started so, else `python run.py`, as in a checkout."""
    return "dreamerjax" if Path(sys.argv[0]).stem == "dreamerjax" else "python run.py"
