"""The command line: what was typed -> settings -> host, show or lab."""

import os
import sys
from collections.abc import Callable, Sequence

from dreamerjax.cli.common import INTERRUPTED
from dreamerjax.cli.lab import bench, compare_runs, experiment, lineage, sweep
from dreamerjax.cli.look import evaluate, report, selfcheck, show
from dreamerjax.cli.play import export, play
from dreamerjax.cli.training import train
from dreamerjax.config import ConfigError
from dreamerjax.host.backend import BackendError
from dreamerjax.host.checkpoint import CheckpointError
from dreamerjax.host.envs import EnvError
from dreamerjax.host.run_folder import RunFolderError

MISTAKES = (ConfigError, EnvError, BackendError, CheckpointError, RunFolderError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; `train` if none is named.

    Returns:
        The exit code: 0, 2 for the user's mistake, 130 if the user stopped it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if os.getcwd() not in sys.path:  # environments of the user's own are found beside where the program was started
        sys.path.append(os.getcwd())
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "eval": evaluate,
        "show": show,
        "report": report,
        "play": play,
        "export": export,
        "selfcheck": selfcheck,
        "bench": bench,
        "compare": compare_runs,
        "experiment": experiment,
        "sweep": sweep,
        "lineage": lineage,
    }
    if arguments in (["-h"], ["--help"]):
        print(f"Commands: {', '.join(commands)}. `python run.py COMMAND --help` tells of each; without one:\n")
    name = "train" if not arguments or arguments[0].startswith("-") else arguments.pop(0)
    try:
        if name not in commands:
            raise ConfigError(f"Unknown command `{name}`, expected one of {', '.join(commands)}.")
        return commands[name](arguments)
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
