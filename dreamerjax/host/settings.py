"""Settings in three layers, later wins: defaults of config.py, YAML files, flags of the command line.

Every layer ends up as flags `--agent.actor.learning-rate=1e-4`, so that YAML and the command line are checked
by the same parser and `1e-4`, which YAML takes for text, is a number in both.
"""

import contextlib
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
import yaml

from dreamerjax.config import Config, ConfigError, ModelSize, flatten, resolve

ENVS = Path(__file__).parents[2] / "experiments" / "envs"
KEYS = tuple(flatten(Config()))
SHORTCUTS = {
    "env": "env.name",
    "size": "agent.model.size",
    "env_steps": "train.env_steps",
    "train_ratio": "train.ratio",
    "stop_when_solved": "train.stop_when_solved",
}

Layer = Mapping[str, Any]  # dotted key -> value


def read_yaml(path: Path) -> Layer:
    """Reads a layer of settings from a YAML file of nested keys.

    Raises:
        ConfigError: it cannot be read, does not parse, or has an unknown key; the message names file and line or key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Give --config an existing YAML file.") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not YAML: {error.problem or error.context}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected settings as lines of `key: value`.")
    layer = flatten({str(key): value for key, value in content.items()})
    for key in layer:
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key `{key}`.{_did_you_mean(key, KEYS)}")
    _parse(_as_flags(layer), source=str(path))
    return layer


def read_env(name: str) -> list[Layer]:
    """The layers of an environment: what suits its family, then its own file, then its name.

    Args:
        name: of a file `experiments/envs/<name>.yaml`, or `family:ID`; a family may have a file, too.

    Raises:
        ConfigError: there is no such file and the name is no `family:ID`.
    """
    path = ENVS / f"{name}.yaml"
    if re.fullmatch(r"[\w.-]+", name) and path.is_file():
        own = read_yaml(path)
        return [*_family(own.get("env.id", "")), own, {"env.name": name}]
    if ":" in name:
        return [*_family(name), {"env.name": name, "env.id": name}]
    known = sorted(file.stem for file in ENVS.glob("*.yaml"))
    meant = _did_you_mean(name, known) or f" Known names: {', '.join(known)}."
    raise ConfigError(
        f"Unknown environment `{name}`.{meant}\nAny Gymnasium id works as `gym:ID`, such as gym:Acrobot-v1."
    )


def _family(env_id: str) -> list[Layer]:
    path = ENVS / f"{env_id.partition(':')[0]}.yaml"
    return [read_yaml(path)] if path.is_file() else []


def read_flags(flags: Sequence[str]) -> Layer:
    """The layer of the command line.

    Args:
        flags: such as `--train.batch-size 8 --no-stop-when-solved --size=1m`; what other parsers left over.

    Raises:
        ConfigError: a flag is unknown or a value has the wrong type.
    """
    names = {**{key: key for key in KEYS}, **SHORTCUTS}
    spelled: list[str] = []
    given: list[str] = []
    for flag in flags:
        if not re.match(r"--?[A-Za-z]", flag):
            spelled.append(flag)
            continue
        name, equals, value = flag.lstrip("-").partition("=")
        name = name.replace("-", "_")
        negated = re.sub(r"(^|\.)no_", r"\1", name)
        key = names.get(name) or names.get(negated)
        if key is None or not flag.startswith("--"):
            flags_known = [f"--{known.replace('_', '-')}" for known in names]
            raise ConfigError(
                f"Unknown flag `{flag.partition('=')[0]}`.{_did_you_mean(flag.partition('=')[0], flags_known)}"
                "\n`python run.py --help` lists all flags."
            )
        given.append(key)
        spelled.append(_flag(key, negated=name not in names) + equals + value)
    parsed = flatten(_parse(spelled, source="command line"))
    return {key: parsed[key] for key in given}


def combine(layers: Iterable[Layer]) -> Config:
    """Puts layers together, later wins, and checks the result.

    A later `agent.model.size` also takes back the numbers of the model that earlier layers set one by one.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
    """
    together: dict[str, Any] = {}
    for layer in layers:
        if "agent.model.size" in layer:
            for field in ModelSize._fields:
                together.pop(f"agent.model.{field}", None)
        together |= layer
    return resolve(_parse(_as_flags(together), source="settings"))


def nested(config: Config) -> dict[str, Any]:
    """The settings as nested dictionaries, for YAML."""
    tree: dict[str, Any] = {}
    for key, value in flatten(config).items():
        *rooms, name = key.split(".")
        branch = tree
        for room in rooms:
            branch = branch.setdefault(room, {})
        branch[name] = value
    return tree


def _parse(flags: Sequence[str], *, source: str) -> Config:
    """Parses canonical flags into typed settings, not yet resolved; an error keeps the first sentence of tyro's box."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            return tyro.cli(Config, args=list(flags), add_help=False)
    except SystemExit as error:
        lines = [line.strip("│ ") for line in output.getvalue().splitlines()[1:]]
        first = lines[: next((i for i, line in enumerate(lines) if set(line) <= set("─╰╯")), len(lines))]
        raise ConfigError(f"{source}: {' '.join(first)}") from error


def _as_flags(layer: Layer) -> list[str]:
    flags = []
    for key, value in layer.items():
        if isinstance(value, bool):
            flags.append(_flag(key, negated=not value))
        else:
            flags.append(f"{_flag(key)}={value}")
    return flags


def _flag(key: str, *, negated: bool = False) -> str:
    room, _, name = key.rpartition(".")
    return "--" + (f"{room}." if room else "").replace("_", "-") + ("no-" if negated else "") + name.replace("_", "-")


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    """A hint, or nothing. A short name also finds the dotted keys that end in it."""
    tail = given.lstrip("-").rpartition(".")[2]
    found = (
        difflib.get_close_matches(given, known, n=2, cutoff=0.7)
        or [name for name in known if difflib.SequenceMatcher(None, tail, name.rpartition(".")[2]).ratio() > 0.8][:3]
    )
    return f" Did you mean {' or '.join(f'`{name}`' for name in found)}?" if found else ""
