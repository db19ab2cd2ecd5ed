"""What the numbers of an action are called, where the environment itself says so."""

import contextlib
import enum
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium


def own_action_names(env: gymnasium.Env, count: int) -> list[str] | None:
    """The environment's own words for the `count` numbers of an action: for each choice, or each number of a vector.

    Returns:
        The names, such as "fire" or "left hip"; None if it has none.
    """
    for asked in _ASKED:
        with contextlib.suppress(Exception):  # it is no such environment, or its own code raises
            names = [str(name).replace("_", " ").strip().lower() for name in asked(env.unwrapped)]
            if len(names) == count and all(names):
                return names
    return None


def _of_enumeration(env: Any) -> Sequence[str]:
    return [member.name for member in env.actions] if issubclass(env.actions, enum.Enum) else []


def _of_actuators(env: Any) -> Sequence[str]:
    return [env.model.actuator(i).name for i in range(env.model.nu)]


_ASKED: tuple[Callable[[Any], Sequence[Any]], ...] = (
    lambda env: env.action_names,  # Crafter, DeepMind Control
    lambda env: env.get_action_meanings(),  # Atari
    _of_enumeration,  # MiniGrid
    _of_actuators,  # Gymnasium's MuJoCo
)
