"""Completes and checks settings."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from dreamerjax.config.hyperparameters import SIZES, Config, EnvConfig
from dreamerjax.config.ranges import ConfigError, Range


def resolve(config: Config) -> Config:
    """Fills in the numbers of the model size and the environment's id, and checks every value.

    Returns:
        The same settings, complete.

    Raises:
        ConfigError: a value is out of its range; the message names the key, the value and the range.
    """
    model = config.agent.model
    preset = SIZES[model.size]._asdict()
    filled = {name: value for name, value in preset.items() if not getattr(model, name)}
    agent = dataclasses.replace(config.agent, model=dataclasses.replace(model, **filled))
    config = dataclasses.replace(config, agent=agent, env=resolve_env(config.env))
    _check(config)
    return config


def resolve_env(env: EnvConfig) -> EnvConfig:
    """As `resolve`, for the environment alone."""
    env = dataclasses.replace(env, id=env.id or env.name)
    _check_ranges(env, "env.")
    if env.solve_return is not None and not math.isfinite(env.solve_return):
        raise ConfigError(f"env.solve_return is {env.solve_return}, expected a finite number or none.")
    env_kwargs(env)
    return env


def env_kwargs(config: EnvConfig) -> dict[str, Any]:
    """The arguments of the environment's constructor, by name.

    Raises:
        ConfigError: `env.kwargs` is not a JSON object.
    """
    try:
        given = json.loads(config.kwargs or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ConfigError(
            f"env.kwargs is {config.kwargs!r}, expected a JSON object of arguments, such as "
            """--env.kwargs '{"level": 3}', or a mapping in YAML."""
        )
    return given


def ranges_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Range]]:
    """Each field that has a range and a value: its dotted key, the value, the range."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from ranges_of(value, f"{prefix}{name}.")
        # In `int | None`, the Annotated type is one level deeper.
        for part in (hint, *get_args(hint)):
            for allowed in getattr(part, "__metadata__", ()):
                if isinstance(allowed, Range) and value is not None:
                    yield f"{prefix}{name}", value, allowed


def _check_ranges(config: Any, prefix: str = "") -> None:
    for key, value, allowed in ranges_of(config, prefix):
        if not (math.isfinite(value) and allowed.holds(value)):
            raise ConfigError(f"{key} is {value}, expected {allowed.expected}.")


def _check(config: Config) -> None:
    """Checks every range, and the settings that depend on each other."""
    _check_ranges(config)
    model, train = config.agent.model, config.train
    if model.deter % model.blocks:
        raise ConfigError(
            f"agent.model.deter is {model.deter}, expected a multiple of agent.model.blocks, which is {model.blocks}."
        )
    if config.agent.returns.scale_low > config.agent.returns.scale_high:
        raise ConfigError("agent.returns.scale_low is above agent.returns.scale_high; expected low <= high.")
    window = train.sequence_length + config.replay.context  # rows: a context is that of one more
    rows = "train.sequence_length" + (" + 1" if config.replay.context else "")
    if config.replay.capacity < window * config.env.num_envs:
        raise ConfigError(
            f"replay.capacity is {config.replay.capacity}, expected at least ({rows}) x env.num_envs = "
            f"{window * config.env.num_envs}: one window for each environment."
        )
    needed = max(train.prefill, window * config.env.num_envs)
    if train.env_steps < needed:
        raise ConfigError(
            f"train.env_steps is {train.env_steps}, expected at least {needed}: the train.prefill of {train.prefill}, "
            f"and one window of ({rows}) x env.num_envs."
        )
