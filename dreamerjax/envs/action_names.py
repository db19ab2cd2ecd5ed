"""Names of an action's numbers, for environments that provide them."""

import contextlib
import enum
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium


def own_action_names(env: gymnasium.Env, count: int) -> list[str] | None:
    """The environment's names for the `count` numbers of an action: one for each choice, or each number of a vector.

    Returns:
        The names, such as "fire" or "left hip"; None if the environment has none.
    """
    for source in _SOURCES:
        with contextlib.suppress(Exception):  # the environment has no such attribute, or its code raises
            names = [str(name).replace("_", " ").strip().lower() for name in source(env.unwrapped)]
            if len(names) == count and all(names):
                return names
    return None


def _of_enumeration(env: Any) -> Sequence[str]:
    return [member.name for member in env.actions] if issubclass(env.actions, enum.Enum) else []


def _of_actuators(env: Any) -> Sequence[str]:
    return [env.model.actuator(i).name for i in range(env.model.nu)]


_SOURCES: tuple[Callable[[Any], Sequence[Any]], ...] = (
    lambda env: env.action_names,  # Crafter, DeepMind Control
    lambda env: env.get_action_meanings(),  # Atari
    _of_enumeration,  # MiniGrid
    _of_actuators,  # Gymnasium's MuJoCo
)
