"""`python run.py --env cartpole`; see README.md, or `python run.py --help`."""

import sys

from dreamerjax.__main__ import import_command_line

try:
    command_line = import_command_line()
except ModuleNotFoundError as error:
    if (error.name or "").startswith("dreamerjax"):
        raise
    print(
        f"error: {error.name} is not installed for this Python. `make setup` installs everything into .venv: then "
        f"`.venv/bin/python run.py ...`, or `source .venv/bin/activate` first.",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    command_line()
