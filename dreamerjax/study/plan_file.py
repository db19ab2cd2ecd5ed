"""Reads the YAML files of hypotheses and sweeps. Every error names the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dreamerjax.config import Config, ConfigError, flatten
from dreamerjax.envs import spaces_of
from dreamerjax.runs.presets import read_env, takes_recipe
from dreamerjax.runs.settings import Layer, combine, did_you_mean, env_of, typed_layer

# Runs of experiments and sweeps have a fixed budget and make no films and reports, unless their file sets it.
QUIET: Layer = {"train.stop_when_solved": False, "log.video_every": 0, "log.tensorboard": False, "log.report": False}


def read_plan_file(file: Path, keys: Mapping[str, str], required: Sequence[str], *, what: str) -> dict[str, Any]:
    """Reads a YAML file and checks its keys.

    Args:
        file: YAML.
        keys: allowed key -> description, for messages.
        required: keys that must be present.
        what: the kind of file, such as "hypothesis".

    Raises:
        ConfigError: the file cannot be read or parsed, lacks a key or has an unknown one.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Give the YAML file of a {what}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is no {what}, expected lines such as `{what}: ...`.")
    for key in content:
        if key not in keys:
            raise ConfigError(f"{file}: unknown key `{key}`.{did_you_mean(str(key), list(keys))}")
    for key in required:
        if key not in content:
            raise ConfigError(f"{file}: `{key}` is missing: {keys[key]}.")
    return content


def read_layer(content: Mapping[str, Any], room: str, where: str, *, but: Sequence[str] = ()) -> dict[str, Any]:
    """The settings under a key, flat and typed, without the keys in `but`."""
    given = content.get(room) or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: {room} is {given!r}, expected settings as lines of `key: value`.")
    layer = flatten({key: value for key, value in given.items() if key not in but})
    return dict(typed_layer(layer, source=f"{where}: {room}"))


def read_config_of(env: str, layers: Sequence[Layer], where: str) -> Config:
    """Complete settings: those of the environment, then `QUIET`, then the layers.

    An environment that takes a recipe gets the laptop recipe on every machine, so plans give the same runs everywhere.
    """
    obs = next((layer["env.obs"] for layer in reversed(layers) if "env.obs" in layer), None)
    try:
        pixels = None
        if takes_recipe(env):
            pixels = any(spec.is_image for spec in spaces_of(env_of([*read_env(env, obs), *layers])).obs)
        return combine([*read_env(env, obs, pixels=pixels), QUIET, *layers])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def read_seeds(given: Any, where: str, *, least: int) -> tuple[int, ...]:
    """Seeds from a list or from their number."""
    seeds = list(range(given)) if type(given) is int else given if isinstance(given, list) else []
    if not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < least:
        wanted = "two or more, preferably three" if least > 1 else "one or more"
        raise ConfigError(f"{where}: seeds is {given!r}, expected {wanted}, such as 3 or [0, 1, 2].")
    return tuple(seeds)
