"""Runs the bench for several values of one setting, each in a separate process to measure its peak memory."""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dreamerjax.bench.settings import SWEPT
from dreamerjax.config import ConfigError
from dreamerjax.runs.settings import did_you_mean
from dreamerjax.runtime.processes import own_command, own_environment


def sweep_points(arguments: Sequence[str], swept: str) -> tuple[str, dict[str, list[str]]]:
    """What to measure, as command lines.

    Args:
        arguments: of the bench, as they were typed, `--sweep` among them.
        swept: what stood behind `--sweep`, such as "batch-size=8,16".

    Returns:
        The key, and value -> arguments of that point.

    Raises:
        ConfigError: the key is none that can be swept, or there are no values.
    """
    key, _, listed = swept.partition("=")
    values = list(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
    if key not in SWEPT:
        hint = did_you_mean(key, SWEPT)
        raise ConfigError(f"--sweep {swept}: `{key}` cannot be swept, expected one of {', '.join(SWEPT)}.{hint}")
    if not values:
        raise ConfigError(f"--sweep {swept} names no values, expected such as --sweep {key}=V1,V2.")
    return key, {value: [*_without_sweep(arguments), f"--{key}={value}"] for value in values}


def measure_apart(arguments: Sequence[str], *, rounds: int) -> dict[str, Any]:
    """Runs one bench in a child process.

    Args:
        arguments: of the bench.
        rounds: of measuring.

    Returns:
        Its result, or {"error": its last words} if it failed; a point that does not fit in memory is a finding, too.
    """
    command = own_command("bench", *arguments, f"--rounds={rounds}", "--json")
    done = subprocess.run(command, env=own_environment(), capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)
    last_words = " ".join(done.stderr.strip().splitlines()[-3:])
    return {"error": f"exit code {done.returncode}: {last_words}"}


def measure_points(
    points: dict[str, list[str]],
    *,
    rounds: int,
    say: Callable[[str], None],
    run: Callable[..., dict[str, Any]] = measure_apart,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measures one point after the other; yields value and result."""
    for number, (value, arguments) in enumerate(points.items(), 1):
        say(f"{value} (point {number} of {len(points)})")
        yield value, run(arguments, rounds=rounds)


def _without_sweep(arguments: Sequence[str]) -> list[str]:
    rest, kept = iter(arguments), []
    for argument in rest:
        if argument == "--sweep":
            next(rest)
        elif not argument.startswith("--sweep="):
            kept.append(argument)
    return kept
