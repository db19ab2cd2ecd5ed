"""Functions for all commands: the argument parser, the start of the back-end, printing."""

import argparse
import dataclasses
import json
import shutil
import textwrap
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

PIPE_WIDTH = 160  # columns
HELP_WIDTH = 100
PLAIN_EVERY_SECONDS = 8.0  # without a terminal: between lines; checked every 2 s, so a line comes within 10 s
INTERRUPTED = 130  # the shells' exit code for Ctrl-C


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `ConfigError` instead of exiting."""

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Like `parse_args`, with a suggestion for a misspelt flag."""
        given, rest = self.parse_known_args(arguments)
        if rest:
            flag = rest[0].partition("=")[0]
            hint = did_you_mean(flag, list(self._option_string_actions))
            raise ConfigError(f"Unknown flag `{flag}`.{hint}\n`{self.prog} --help` lists all flags.")
        return given

    def error(self, message: str) -> NoReturn:
        """Called by argparse for invalid arguments."""
        raise ConfigError(f"{message}.\n`{self.prog} --help` lists all flags.")


class Status:
    """Permanent lines above one status line, for commands that wait for other processes."""

    def __init__(self, title: str) -> None:
        """Shows nothing yet. Without a terminal, the status line is printed every few seconds."""
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
        """Prints a permanent line."""
        self._printed_at = time.monotonic()
        self._console.print(Text(text), soft_wrap=True)

    def show(self, text: str) -> None:
        """Replaces the status line."""
        self._status.update(Text(text))
        if not self._console.is_terminal and time.monotonic() - self._printed_at >= PLAIN_EVERY_SECONDS:
            self.note(text)

    def close(self) -> None:
        """Removes the status line and restores the terminal."""
        self._status.stop()


def path(text: str) -> Path:
    """Argument type: a path; `~` is the home folder."""
    return Path(text).expanduser()


def whole_number(text: str) -> int:
    """Argument type: a whole number, also written as 1e6.

    Raises:
        argparse.ArgumentTypeError: the text is not a whole number.
    """
    try:
        return int(whole(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is given, expected a whole number") from None


def report_stopped(interrupt: Interrupt, status: Status, what: str) -> int:
    """Reports that a command was stopped, on standard error if standard output is lost. Returns the exit code."""
    if interrupt.lost_output is None:
        status.note(f"Stopped: {what}.")
    else:
        complain(f"Standard output was lost ({interrupt.lost_output}), so the command stopped: {what}.")
    return interrupt.requested or INTERRUPTED


def command_parser(command: str, description: str, **options: Any) -> Parser:
    """The parser of one command. Paragraphs of the description are wrapped, unless they are indented."""
    return Parser(
        prog=f"{program()} {command}",
        description="\n\n".join(map(wrapped, description.split("\n\n"))),
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=help_width()),
        **options,
    )


def help_width() -> int:
    """Columns of `--help`: those of the terminal, at most 100."""
    return min(HELP_WIDTH, shutil.get_terminal_size().columns)


def wrapped(paragraph: str) -> str:
    """A paragraph of `--help` in lines of at most `help_width`; an indented one stays as it is."""
    return paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph, help_width())


def start_backend(name: str, *, also_cpu: bool = False, deterministic: bool = False) -> Backend:
    """Selects the back-end. Call it before any use of JAX."""
    backend = select_backend(name, also_cpu=also_cpu, deterministic=deterministic)
    enable_compilation_cache()
    return backend


def for_platform(config: Config, backend: Backend) -> Config:
    """Replaces "auto" in the settings with the choice for this back-end."""
    agent, train, accelerator = config.agent, config.train, backend.platform != "cpu"
    if agent.precision == "auto":
        agent = dataclasses.replace(agent, precision="bfloat16" if accelerator else "float32")
    if train.collection == "auto":
        train = dataclasses.replace(train, collection="overlapped" if accelerator else "interleaved")
    return dataclasses.replace(config, agent=agent, train=train)


def make_console() -> Console:
    """A console for tables: as wide as the terminal, or 160 columns in a pipe, so that tables are not cut off."""
    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def print_result(content: Any, table: Table, *, as_json: bool) -> None:
    """Prints one JSON value and nothing else, or a table."""
    if as_json:
        print(json.dumps(content))
    else:
        Console().print(table)
