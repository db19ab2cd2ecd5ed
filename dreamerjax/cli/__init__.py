"""The command line: dispatches to one function per command and turns errors into exit codes."""

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from dreamerjax.cli.common import INTERRUPTED, wrapped
from dreamerjax.cli.inspection import evaluate, report, selfcheck, show
from dreamerjax.cli.play import export, play
from dreamerjax.cli.research import bench, compare_runs, experiment, lineage, sweep
from dreamerjax.cli.training import train
from dreamerjax.command import command
from dreamerjax.config import ConfigError
from dreamerjax.envs import EnvError
from dreamerjax.runs.checkpoint import CheckpointError
from dreamerjax.runs.run_folder import RunFolderError
from dreamerjax.runs.settings import did_you_mean
from dreamerjax.runtime.backend import BackendError, select_backend
from dreamerjax.runtime.background import any_running
from dreamerjax.runtime.installed import versions
from dreamerjax.runtime.output import CLOSED_PIPE, NOT_WRITABLE, LostOutputError, Output, complain
from dreamerjax.study.variant import apply_variant

USER_ERRORS = (ConfigError, EnvError, BackendError, CheckpointError, RunFolderError)
# Failures of the operating system or the disk. Any other OSError is a bug in the program and shows its traceback.
SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


def command_line() -> NoReturn:
    """Runs the command in `sys.argv` and exits; skips Python's cleanup if a thread is still compiling."""
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        complain(traceback.format_exc().rstrip())
        code = 1
    if any_running():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; `train` if none is named.

    Returns:
        The exit code: 0 on success, 2 for a user error or a full disk, 128 + the signal number after a signal: 130
        for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal, 141 for a closed pipe (`| head`).
    """
    with contextlib.suppress(OSError):  # the current folder may have been deleted
        if (here := os.getcwd()) not in sys.path:  # so that custom environments in the current folder can be imported
            sys.path.append(here)
    output = Output(_raise)
    try:
        with contextlib.redirect_stdout(output):  # pyright: ignore[reportArgumentType]
            try:
                code = _run(list(sys.argv[1:] if argv is None else argv))
            except SystemExit:  # argparse exits after --help
                output.flush()
                raise
            output.flush()  # inside the try: flushing can fail
    except LostOutputError as lost:
        if lost.exit_code == NOT_WRITABLE:
            complain(f"error: The output cannot be written: {lost}.")
        return lost.exit_code
    return code or (output.lost.exit_code if output.lost else 0)


def _run(arguments: list[str]) -> int:
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
    if arguments == ["--version"]:
        backend = select_backend("auto")
        print(", ".join(f"{name} {version}" for name, version in versions().items()))
        print(f"{backend.platform} ({backend.device})")
        return 0
    if arguments in (["-h"], ["--help"]):
        names = wrapped(f"Commands: {', '.join(commands)}.")
        print(f"{names}\n`{command()} COMMAND --help` explains each. The default command is train:\n")
    try:
        arguments = apply_variant(arguments)
        name = "train" if not arguments or arguments[0].startswith("-") else arguments.pop(0)
        if name not in commands:
            meant = did_you_mean(name, list(commands))
            raise ConfigError(f"Unknown command `{name}`, expected one of {', '.join(commands)}.{meant}")
        return commands[name](arguments)
    except USER_ERRORS as error:
        complain("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]))
        return 2
    except BrokenPipeError:
        return CLOSED_PIPE
    except OSError as error:
        if error.errno not in SYSTEM_ERRORS:
            raise
        where = f"{error.filename} cannot be used: " if error.filename else ""
        complain("\n".join([f"error: {where}{error.strerror}.", *getattr(error, "__notes__", [])]))
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _raise(error: LostOutputError) -> None:
    raise error
