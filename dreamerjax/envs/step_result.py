"""Parses the return values of an environment's `reset` and `step`; accepts unambiguous deviations from Gymnasium.

step: (observation, reward, terminated, truncated, info)   reset: (observation, info)

accepted                                        rejected
a reward as a list or an array of one number    None, text, several numbers
flags as numbers or arrays of one               None, text, anything but 0 and 1
`info` None or not a dictionary (ignored)
four values, as in Gym before 2022              any other number of values
`reset` that takes no seed or returns no info
"""

import inspect
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamerjax.envs.names import brief
from dreamerjax.envs.observations import BadValueError

RESERVED_METRICS = ("return", "length")  # of an episode: computed by this package
TIME_LIMIT = "TimeLimit.truncated"  # Gym's key in `info` for a time limit


class StepResultError(ValueError):
    """`step` returned something other than Gymnasium's values: a new episode would not help."""


class StepResult(NamedTuple):
    """The parsed return value of `step`."""

    obs: Any
    reward: Any  # not parsed yet: see `as_reward`
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    old: bool  # four values, as in Gym before 2022


def read_step(given: Any) -> StepResult:
    """Parses what `step` returned.

    Raises:
        StepResultError: the number of values is wrong, or a flag is neither true nor false.
    """
    if not isinstance(given, tuple | list) or len(given) not in (4, 5):
        found = f"{len(given)} values" if isinstance(given, tuple | list) else brief(given)
        raise StepResultError(f"`step` returned {found}, expected (observation, reward, terminated, truncated, info)")
    info = given[-1] if isinstance(given[-1], Mapping) else {}
    if len(given) == 5:
        obs, reward, terminated, truncated, _ = given
        return StepResult(obs, reward, _flag("terminated", terminated), _flag("truncated", truncated), info, old=False)
    obs, reward, done, _ = given
    over, late = _flag("done", done), _flag(TIME_LIMIT, info.get(TIME_LIMIT, False))
    return StepResult(obs, reward, over and not late, over and late, info, old=True)


def read_reset(given: Any, space: gymnasium.Space) -> tuple[Any, bool]:
    """The observation that `reset` returned, and whether it came without `info`, as in old Gym versions."""
    pair = isinstance(given, tuple) and len(given) == 2 and (given[1] is None or isinstance(given[1], Mapping))
    if pair and isinstance(space, gymnasium.spaces.Tuple) and not isinstance(given[0], tuple | list):
        pair = False  # the observation itself is a pair, and its second part is a dictionary
    return (given[0], False) if pair else (given, True)


def takes_seed(env: gymnasium.Env) -> bool:
    """Whether the environment's own `reset` accepts a seed."""
    try:
        parameters = inspect.signature(env.unwrapped.reset).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(one.name == "seed" or one.kind is one.VAR_KEYWORD for one in parameters)


def as_reward(given: Any) -> float:
    """The reward as a float.

    Raises:
        BadValueError: it is not one number.
    """
    if isinstance(given, float | int):
        return float(given)
    number = _one(given)
    if number is None:
        raise BadValueError(f"the reward is {brief(given)}, expected one number")
    return number


def info_metrics(info: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """The numbers in `info["metrics"]`, and a message about entries that are not used; empty if all are used."""
    given = info.get("metrics")
    if given is None:
        return {}, ""
    if not isinstance(given, Mapping):
        return {}, f'info["metrics"] is {brief(given)}, expected a mapping of names to numbers; it is ignored'
    values = {str(name): _one(value) for name, value in given.items()}
    metrics = {name: value for name, value in values.items() if value is not None and name not in RESERVED_METRICS}
    ignored = list(_ignored(given, metrics))
    return metrics, f'ignored in info["metrics"]: {", ".join(ignored)}' if ignored else ""


def _ignored(given: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[str]:
    for name, value in given.items():
        if str(name) in RESERVED_METRICS:
            yield f"'{name}' (reserved name)"
        elif str(name) not in metrics:
            yield f"'{name}' ({brief(value)}, not a number)"


def _flag(name: str, given: Any) -> bool:
    if isinstance(given, bool | np.bool_):
        return bool(given)
    number = _one(given)
    if number not in (0.0, 1.0):
        raise StepResultError(f"`step` returned {brief(given)} as {name}, expected true or false")
    return bool(number)


def _one(given: Any) -> float | None:
    """The value as a float if it is one number, also in an array or a list; else None."""
    if given is None or isinstance(given, str | bytes | complex | Mapping):
        return None
    if isinstance(given, numbers.Real):
        return float(given)
    try:
        array = np.asarray(given)
        if array.size != 1 or array.dtype.kind not in "fiubO":
            return None
        item = array.reshape(()).item()
        return None if item is None or isinstance(item, str | bytes) else float(item)
    except Exception:  # the value may be of any class, with any behaviour
        return None
