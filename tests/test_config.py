"""Hyperparameters: sizes are filled in, every range is enforced, the family of a run is what its weights need."""

import dataclasses
import math
from typing import Any, get_args, get_type_hints

import pytest

from dreamerjax import config as module
from dreamerjax.config import SIZES, Config, ConfigError, Range, family_key, flatten, resolve
from dreamerjax.config.checks import ranges_of

COMPLETE = resolve(Config())
RANGES = {key: allowed for key, _, allowed in ranges_of(COMPLETE)}
CANDIDATES = (-1e9, -1, -1e-9, 0, 1e-9, 0.5, 1, 1 + 1e-9, 2, 3, 4, 5, 2.5, 1e9)


def changed(config: Any, key: str, value: Any) -> Any:
    """The same settings with one of them changed, by its dotted key."""
    name, _, rest = key.partition(".")
    return dataclasses.replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


def numbers() -> list[str]:
    """Every setting that is a number; bool is an int in Python, but no number here."""
    return [key for key, value in flatten(COMPLETE).items() if type(value) in (int, float)]


def refusal(config: Config) -> str:
    """Why the settings are refused, "" if they are not."""
    try:
        resolve(config)
    except ConfigError as error:
        return str(error)
    return ""


# Sizes


@pytest.mark.parametrize("size", SIZES)
def test_the_size_fills_in_the_numbers_of_the_model(size: str) -> None:
    model = resolve(changed(Config(), "agent.model.size", size)).agent.model
    assert {name: getattr(model, name) for name in SIZES[size]._fields} == SIZES[size]._asdict()
    assert model.size == size


def test_every_size_can_be_chosen_and_divides() -> None:
    assert set(SIZES) == set(get_args(get_type_hints(module.ModelConfig)["size"]))
    for size in SIZES.values():
        assert size.deter % size.blocks == 0


def test_numbers_that_are_given_stay() -> None:
    given = changed(changed(Config(), "agent.model.deter", 24), "agent.model.classes", 3)
    model = resolve(given).agent.model
    assert (model.deter, model.classes) == (24, 3)
    assert model.hidden == SIZES[model.size].hidden


def test_the_id_follows_from_the_name() -> None:
    assert resolve(changed(Config(), "env.name", "gym:Acrobot-v1")).env.id == "gym:Acrobot-v1"
    both = changed(changed(Config(), "env.name", "cartpole"), "env.id", "gym:CartPole-v1")
    assert resolve(both).env == both.env


def test_resolving_twice_changes_nothing_and_the_argument_stays() -> None:
    config = Config()
    assert resolve(resolve(config)) == resolve(config)
    assert config == Config()


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        COMPLETE.train.batch_size = 1  # pyright: ignore[reportAttributeAccessIssue]


# Ranges


@pytest.mark.parametrize("key", numbers())
def test_every_number_has_a_range(key: str) -> None:
    assert key in RANGES


def test_a_goal_must_be_a_number() -> None:
    for goal in (-1e6, 0.0, 475):
        resolve(changed(Config(), "env.solve_return", goal))
    for goal in (math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"env\.solve_return"):
            resolve(changed(Config(), "env.solve_return", goal))


@pytest.mark.parametrize("key", RANGES)
def test_ranges_are_enforced_and_named(key: str) -> None:
    allowed = RANGES[key]
    outside = [value for value in CANDIDATES if not allowed.holds(value)]
    assert outside, "a range excludes something"
    # 0 stands for "as the size has it" in the numbers of the model size.
    if key.removeprefix("agent.model.") in module.ModelSize._fields:
        outside.remove(0)
    for value in [*outside, math.nan, math.inf, -math.inf]:
        with pytest.raises(ConfigError) as caught:
            resolve(changed(Config(), key, value))
        assert str(caught.value) == f"{key} is {value}, expected {allowed.expected}."


@pytest.mark.parametrize("key", RANGES)
def test_no_range_is_too_narrow(key: str) -> None:
    """A value inside the range is refused, if at all, for how it fits to other settings."""
    allowed, default = RANGES[key], flatten(COMPLETE)[key]
    assert allowed.holds(default)
    inside = [value for value in CANDIDATES if allowed.holds(value) and value == type(default)(value)]
    assert inside
    for value in inside:
        assert not refusal(changed(Config(), key, value)).endswith(f"expected {allowed.expected}.")


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (module.Positive, [1e-9, 1e9], [0, -1e-9]),
        (module.PositiveInt, [1, 10**12], [0, -1]),
        (module.NonNegative, [0, 1e-9], [-1e-9]),
        (module.NonNegativeInt, [0, 1], [-1]),
        (module.Fraction, [0, 0.5, 1], [-1e-9, 1 + 1e-9]),
        (module.BelowOne, [0, 0.999], [1, -1e-9]),
        (module.AboveOne, [1 + 1e-9, 333], [1, 0]),
        (module.AtLeastTwo, [2, 3], [1, 0]),
        (module.OddInt, [3, 255], [1, 2, 4, -3]),
    ],
)
def test_the_edges_of_the_ranges(kind: Any, inside: list[float], outside: list[float]) -> None:
    (allowed,) = kind.__metadata__
    assert isinstance(allowed, Range)
    assert all(allowed.holds(value) for value in inside)
    assert not any(allowed.holds(value) for value in outside)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"agent.model.deter": 100, "agent.model.blocks": 8},
            "agent.model.deter is 100, expected a multiple of agent.model.blocks, which is 8.",
        ),
        (
            {"agent.returns.scale_low": 0.9, "agent.returns.scale_high": 0.1},
            "agent.returns.scale_low is above agent.returns.scale_high",
        ),
        (
            {"replay.capacity": 255, "train.sequence_length": 64, "env.num_envs": 4},
            "replay.capacity is 255, expected at least (train.sequence_length + 1) x env.num_envs = 260",
        ),
        (
            {"replay.capacity": 255, "train.sequence_length": 64, "env.num_envs": 4, "replay.context": False},
            "replay.capacity is 255, expected at least (train.sequence_length) x env.num_envs = 256",
        ),
        (
            {"train.env_steps": 99, "train.prefill": 100},
            "train.env_steps is 99, expected at least 100: the train.prefill of 100,",
        ),
    ],
)
def test_settings_that_do_not_fit_together(changes: dict[str, float], message: str) -> None:
    config = Config()
    for key, value in changes.items():
        config = changed(config, key, value)
    with pytest.raises(ConfigError) as caught:
        resolve(config)
    assert str(caught.value).startswith(message)


def test_settings_that_just_fit_together() -> None:
    config = Config()
    for key, value in {
        "agent.model.deter": 16,
        "agent.model.blocks": 16,
        "agent.returns.scale_low": 0.5,
        "agent.returns.scale_high": 0.5,
        "replay.capacity": 260,
        "env.num_envs": 4,
        "train.sequence_length": 64,
        "train.env_steps": 260,
        "train.prefill": 260,
    }.items():
        config = changed(config, key, value)
    assert resolve(config).train.env_steps == 260


# Keys


def test_flatten_names_every_leaf() -> None:
    flat = flatten(COMPLETE)
    assert flat["seed"] == COMPLETE.seed
    assert flat["agent.actor.learning_rate"] == COMPLETE.agent.actor.learning_rate
    assert not any(dataclasses.is_dataclass(value) for value in flat.values())
    assert flatten({"a": {"b": {"c": 1}, "d": None}, "e": [1]}) == {"a.b.c": 1, "a.d": None, "e": [1]}
    assert flatten({"b": 1}, "a.") == {"a.b": 1}
    assert flatten({"a": {}}) == {}


@pytest.mark.parametrize("key", ["env.id", "agent.model.deter", "agent.model.bins", "agent.model.actor_layers"])
def test_what_weights_depend_on_is_in_the_family(key: str) -> None:
    assert key in family_key(COMPLETE)


@pytest.mark.parametrize("key", [key for key in flatten(COMPLETE) if not key.startswith(("agent.model.", "env."))])
def test_what_weights_do_not_depend_on_is_not(key: str) -> None:
    assert key not in family_key(COMPLETE)


def test_the_name_of_a_size_is_not_in_the_family() -> None:
    """A custom size with the numbers of a published one is the same model."""
    named = resolve(changed(Config(), "agent.model.size", "12m"))
    by_numbers = Config()
    for name, value in SIZES["12m"]._asdict().items():
        by_numbers = changed(by_numbers, f"agent.model.{name}", value)
    assert family_key(named) == family_key(resolve(by_numbers))
    assert family_key(named) != family_key(COMPLETE)
