"""Settings in layers: defaults of dreamerjax/config, YAML files, flags. Later layers override earlier ones.

A layer is a flat dictionary (dotted key -> typed value). Layers are compared and combined key by key.
"""

import dataclasses
import decimal
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pydantic
import yaml

from dreamerjax.command import command
from dreamerjax.config import KWARGS, Config, ConfigError, EnvConfig, ModelSize, flatten, resolve, resolve_env

DIGITS = 18  # of a whole number, at most
KEYS = tuple(flatten(Config()))
SHORTCUTS = {
    "env": "env.name",
    "obs": "env.obs",
    "size": "agent.model.size",
    "env_steps": "train.env_steps",
    "train_ratio": "train.ratio",
    "stop_when_solved": "train.stop_when_solved",
}

ABBREVIATED = {"lr": "learning-rate", "bs": "batch-size"}  # as typed
BUDGET = ("train.env_steps", "train.stop_when_solved")  # when training ends; the other settings say how it learns

RENAMED = {
    "env.copies": "env.num_envs",
    "eval.copies": "eval.num_envs",
}  # old -> new; version 0.2 removes the old names

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
    return typed_layer(flatten({str(key): value for key, value in content.items()}), source=str(path))


def typed_layer(layer: Layer, *, source: str) -> Layer:
    """The same settings with the types that their keys have.

    Raises:
        ConfigError: a key is unknown or a value has the wrong type; the message begins with the source.
    """
    layer = {RENAMED.get(key, key): value for key, value in layer.items()}
    for key in layer:
        if key not in KEYS:
            raise ConfigError(f"{source}: unknown key `{key}`.{did_you_mean(key, KEYS)}")
    return {key: _typed(key, value, source=f"{source}: {key}") for key, value in layer.items()}


def read_flags(flags: Sequence[str]) -> Layer:
    """The layer of the command line.

    Args:
        flags: such as `--train.batch-size 8 --no-stop-when-solved --size=1m`; what other parsers left over.

    Raises:
        ConfigError: a flag is unknown, lacks its value, or its value has the wrong type.
    """
    names = {**{key: key for key in KEYS}, **SHORTCUTS, **RENAMED}
    layer: dict[str, Any] = {}
    rest = list(flags)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        positive = re.sub(r"(^|\.)no_", r"\1", name)
        key = names.get(name) or (names.get(positive) if TYPES.get(names.get(positive, "")) is bool else None)
        if key is None or not flag.startswith("--"):
            known = [f"--{other.replace('_', '-')}" for other in names if other not in RENAMED]
            raise ConfigError(
                f"Unknown flag `{flag}`.{did_you_mean(flag, known)}\n`{command()} --help` lists all flags."
            )
        if equals and name not in names:
            raise ConfigError(f"{flag} takes no value.")
        if TYPES[key] is bool and not equals:
            value = name in names
        elif not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{flag} needs a value, expected {_expected(TYPES[key])}.")
            value = rest.pop(0)
        layer[key] = _typed(key, value, source=flag)
    return layer


def combine(layers: Iterable[Layer]) -> Config:
    """Puts layers together, later wins, and checks the result.

    A later `agent.model.size` also takes back the numbers of the model that earlier layers set one by one.

    Raises:
        ConfigError: a value is out of range.
    """
    together: dict[str, Any] = {}
    for layer in layers:
        if "agent.model.size" in layer:
            for field in ModelSize._fields:
                together.pop(f"agent.model.{field}", None)
        together |= layer
    return resolve(_build(Config, together))


def env_of(layers: Iterable[Layer]) -> EnvConfig:
    """The environment that layers ask for, checked; the rest of them need not be complete.

    Raises:
        ConfigError: a value of the environment is out of range.
    """
    together = {key: value for layer in layers for key, value in layer.items()}
    return resolve_env(_build(EnvConfig, together, "env."))


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


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """A hint, or nothing. A short name also finds the dotted keys that end in it, or in which it is a word."""
    tail = given.lstrip("-").rpartition(".")[2].replace("_", "-")
    tail = ABBREVIATED.get(tail, tail)
    ends = {name: name.lstrip("-").rpartition(".")[2].replace("_", "-") for name in known}
    found = (
        difflib.get_close_matches(given, known, n=2, cutoff=0.7)
        or [name for name, end in ends.items() if difflib.SequenceMatcher(None, tail, end).ratio() > 0.8][:3]
        or [name for name, end in ends.items() if tail in end.split("-")][:3]
    )
    return f" Did you mean {' or '.join(f'`{name}`' for name in found)}?" if found else ""


def _types(room: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> type of every field."""
    types: dict[str, Any] = {}
    for name, hint in get_type_hints(room).items():
        types |= _types(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else {f"{prefix}{name}": hint}
    return types


TYPES = _types(Config)


def _typed(key: str, value: Any, *, source: str) -> Any:
    """The value as the key's type has it; text such as "1e-4", which is what YAML makes of it, may be a number."""
    if key == KWARGS and isinstance(value, Mapping):
        value = json.dumps(value, sort_keys=True)
    if isinstance(value, list) and TYPES[key] is str:  # of names, as YAML has lists
        value = ",".join(map(str, value))
    if isinstance(value, str) and int in (TYPES[key], *get_args(TYPES[key])):
        value = whole(value)
    if value in ("none", "None") and type(None) in get_args(TYPES[key]):
        value = None
    if isinstance(value, bool) and TYPES[key] is not bool:
        raise ConfigError(f"{source} is {value!r}, expected {_expected(TYPES[key])}.")
    try:
        return pydantic.TypeAdapter(TYPES[key]).validate_python(value)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{source} is {value!r}, expected {_expected(TYPES[key])}.") from error


def whole(text: str) -> str:
    """The text "1e6" as "1000000"; what is no whole number stays as it is."""
    try:
        number = decimal.Decimal(text)
        return str(int(number)) if number == number.to_integral_value() and number.adjusted() < DIGITS else text
    except (decimal.InvalidOperation, ValueError, OverflowError):
        return text


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    return " or ".join(names[part] for part in get_args(hint) or (hint,))


def _build(room: Any, layer: Layer, prefix: str = "") -> Any:
    """A configuration dataclass with the values of a layer, defaults elsewhere."""
    values = {}
    for field in dataclasses.fields(room):
        if dataclasses.is_dataclass(inner := get_type_hints(room)[field.name]):
            values[field.name] = _build(inner, layer, f"{prefix}{field.name}.")
        elif (key := f"{prefix}{field.name}") in layer:
            values[field.name] = layer[key]
    return room(**values)
