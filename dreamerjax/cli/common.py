"""What every command shares: its parser, its back-end, its output."""

import argparse
import dataclasses
import json
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from dreamerjax.config import Config, ConfigError
from dreamerjax.host.backend import Backend, enable_compilation_cache, select_backend
from dreamerjax.host.settings import did_you_mean

PIPE_WIDTH = 160
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


def command_parser(command: str, description: str, **options: Any) -> Parser:
    """The parser of `python run.py COMMAND`."""
    return Parser(
        prog=f"python run.py {command}",
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
