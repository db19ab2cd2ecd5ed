"""What every command shares: its parser, its back-end, its output."""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreamerjax.command import command as program
from dreamerjax.config import Config, ConfigError
from dreamerjax.runs.settings import did_you_mean, whole
from dreamerjax.runtime.backend import Backend, select_backend
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.output import complain
from dreamerjax.runtime.xla_cache import enable_compilation_cache

PIPE_WIDTH = 160
PLAIN_EVERY_SECONDS = 8.0  # looked at every two seconds, so that nothing is silent for more than ten
INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C


class Parser(argparse.ArgumentParser):
    """Its mistakes are a `ConfigError`, as all are."""

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """As `parse_args`, with a hint where a flag is misspelt."""
        given, rest = self.parse_known_args(arguments)
        if rest:
            flag = rest[0].partition("=")[0]
            hint = did_you_mean(flag, list(self._option_string_actions))
            raise ConfigError(f"Unknown flag `{flag}`.{hint}\n`{self.prog} --help` shows what there is.")
        return given

    def error(self, message: str) -> NoReturn:
        """Argparse's own mistakes."""
        raise ConfigError(f"{message}.\n`{self.prog} --help` shows what there is.")


class Status:
    """Lines that stay, and below them one that changes, for commands that wait for other processes."""

    def __init__(self, title: str) -> None:
        """Shows nothing yet; where there is no terminal, the changing line is printed now and then."""
        self._console = Console()
        self._status = self._console.status(Text(title))
        self._printed_at = time.monotonic()

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self._printed_at = time.monotonic()
        self._console.print(Text(text), soft_wrap=True)

    def show(self, text: str) -> None:
        """Changes the line below."""
        self._status.update(Text(text))
        if not self._console.is_terminal and time.monotonic() - self._printed_at >= PLAIN_EVERY_SECONDS:
            self.note(text)

    def close(self) -> None:
        """Gives the terminal back."""
        self._status.stop()


def path(text: str) -> Path:
    """A path that was typed; `~` is the home folder."""
    return Path(text).expanduser()


def whole_number(text: str) -> int:
    """A whole number that was typed; 1e6 is one, too.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return int(whole(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is given, expected a whole number") from None


def stopped(interrupt: Interrupt, status: Status, how: str) -> int:
    """Says that a command was stopped, where somebody can read it, and returns its exit code."""
    if interrupt.lost_output is None:
        status.note(f"Stopped; {how}.")
    else:
        complain(f"Standard output was lost ({interrupt.lost_output}): stopped; {how}.")
    return interrupt.requested or INTERRUPTED


def command_parser(command: str, description: str, **options: Any) -> Parser:
    """The parser of `python run.py COMMAND`."""
    return Parser(
        prog=f"{program()} {command}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def start_backend(name: str, *, also_cpu: bool = False, deterministic: bool = False) -> Backend:
    """Chooses the back-end; only then may anything touch JAX."""
    backend = select_backend(name, also_cpu=also_cpu, deterministic=deterministic)
    enable_compilation_cache()
    return backend


def for_platform(config: Config, backend: Backend) -> Config:
    """Decides what the settings leave to "auto"."""
    agent, train, accelerator = config.agent, config.train, backend.platform != "cpu"
    if agent.precision == "auto":
        agent = dataclasses.replace(agent, precision="bfloat16" if accelerator else "float32")
    if train.collection == "auto":
        train = dataclasses.replace(train, collection="overlapped" if accelerator else "interleaved")
    return dataclasses.replace(config, agent=agent, train=train)


def make_console() -> Console:
    """A console for tables: as wide as the terminal, and wide in a pipe, where nothing must be cut off."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def print_result(content: Any, table: Table, *, as_json: bool) -> None:
    """One JSON value and nothing else, or a table for people."""
    if as_json:
        print(json.dumps(content))
    else:
        Console().print(table)
