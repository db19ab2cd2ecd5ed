"""`python -m dreamerjax`: the same as `dreamerjax` and `python run.py`."""

from dreamerjax.cli import command_line

if __name__ == "__main__":
    command_line()
