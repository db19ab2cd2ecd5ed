"""Names of actions: from the environment, or from its action space."""

import enum
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

from dreamerjax.envs.action_names import own_action_names
from dreamerjax.envs.actions import action_of


class Moves(enum.IntEnum):
    turn_left = 0
    pick_up = 1


class Named(gymnasium.Env):
    def __init__(self, **words) -> None:
        vars(self).update(words)


def refuse() -> list[str]:
    raise RuntimeError("no names today")


ACTUATORS = SimpleNamespace(nu=2, actuator=lambda i: SimpleNamespace(name=["hip", "knee"][i]))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ({"action_names": ["noop", "place_table"]}, ["noop", "place table"]),
        ({"get_action_meanings": lambda: ["NOOP", "UPRIGHTFIRE"]}, ["noop", "uprightfire"]),
        ({"actions": Moves}, ["turn left", "pick up"]),
        ({"model": ACTUATORS}, ["hip", "knee"]),
        ({"action_names": ["one too few"]}, None),
        ({"action_names": ["", ""]}, None),
        ({"actions": 7, "get_action_meanings": refuse}, None),
        ({}, None),
    ],
)
def test_names_from_the_environment(words: dict, names: list[str] | None) -> None:
    assert own_action_names(Named(**words), 2) == names


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (Discrete(2), ["action 1", "action 2"]),
        (Box(-1, 1, (1,)), ["action"]),
        (Box(-1, 1, (2,)), ["axis 1", "axis 2"]),
        (MultiBinary(1), ["part 1: 1", "part 1: 2"]),
        (MultiDiscrete(np.array([2, 1])), ["part 1: 1", "part 1: 2", "part 2: 1"]),
        (Dict(grip=Box(0, 1, (1,)), move=Discrete(2)), ["grip", "move 1", "move 2"]),
    ],
)
def test_names_from_the_space(space: gymnasium.Space, names: list[str]) -> None:
    action = action_of(space, label="mine:make")
    assert action.names == names
    assert len(action.names) == action.size
