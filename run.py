"""`python run.py --env cartpole`; see README.md, or `python run.py --help`."""

import sys

from dreamerjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
