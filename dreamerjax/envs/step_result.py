"""What an environment's `reset` and `step` give, as Gymnasium has it: what has one plain meaning is taken.

step: (observation, reward, terminated, truncated, info)   reset: (observation, info)

taken                                           refused
a reward as a list or an array of one number    None, text, several numbers
flags as numbers or arrays of one               None, text, anything but 0 and 1
`info` None                                     (nothing: what is no dictionary is left out, and told)
four values, as Gym had them before 2022        any other number of values
`reset` that takes no seed, or gives no info
"""

import inspect
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamerjax.envs.names import brief
from dreamerjax.envs.observations import BadValueError

RESERVED_METRICS = ("return", "length")  # of an episode: they are counted here
TIME_LIMIT = "TimeLimit.truncated"  # Gym's word in `info` for an end that is none of the task


class StepResultError(ValueError):
    """`reset` or `step` gave something else than Gymnasium's values: no later episode would be better."""


class StepResult(NamedTuple):
    """What a step gave."""

    obs: Any
    reward: Any  # see `as_reward`
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    old: bool  # four values were given


def read_step(given: Any) -> StepResult:
    """The five values of a step.

    Raises:
        StepResultError: it is something else, or a flag is neither true nor false.
    """
    if not isinstance(given, tuple | list) or len(given) not in (4, 5):
        many = f"{len(given)} values" if isinstance(given, tuple | list) else brief(given)
        raise StepResultError(f"`step` gave {many}, expected (observation, reward, terminated, truncated, info)")
    info = given[-1] if isinstance(given[-1], Mapping) else {}
    if len(given) == 5:
        obs, reward, terminated, truncated, _ = given
        return StepResult(obs, reward, _flag("terminated", terminated), _flag("truncated", truncated), info, old=False)
    obs, reward, done, _ = given
    over, late = _flag("done", done), _flag(TIME_LIMIT, info.get(TIME_LIMIT, False))
    return StepResult(obs, reward, over and not late, over and late, info, old=True)


def read_reset(given: Any, space: gymnasium.Space) -> tuple[Any, bool]:
    """The observation that a reset gave, and whether it came alone, as Gym had it."""
    pair = isinstance(given, tuple) and len(given) == 2 and (given[1] is None or isinstance(given[1], Mapping))
    if pair and isinstance(space, gymnasium.spaces.Tuple) and not isinstance(given[0], tuple | list):
        pair = False  # the observation itself is a pair, whose second part is a dictionary
    return (given[0], False) if pair else (given, True)


def takes_seed(env: gymnasium.Env) -> bool:
    """Whether the environment's own `reset` can be given a seed."""
    try:
        taken = inspect.signature(env.unwrapped.reset).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(one.name == "seed" or one.kind is one.VAR_KEYWORD for one in taken)


def as_reward(given: Any) -> float:
    """One number.

    Raises:
        BadValueError: it is none, or several.
    """
    if isinstance(given, float | int):
        return float(given)
    number = _one(given)
    if number is None:
        raise BadValueError(f"the reward is {brief(given)}, expected one number")
    return number


def info_metrics(info: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """The numbers of `info["metrics"]`, and a sentence about what is there and is no number; empty if all are."""
    given = info.get("metrics")
    if given is None:
        return {}, ""
    if not isinstance(given, Mapping):
        return {}, f'info["metrics"] is {brief(given)}, expected names and numbers; it is left out'
    values = {str(name): _one(value) for name, value in given.items()}
    metrics = {name: value for name, value in values.items() if value is not None and name not in RESERVED_METRICS}
    left_out = list(_left_out(given, metrics))
    return metrics, f'left out of info["metrics"]: {", ".join(left_out)}' if left_out else ""


def _left_out(given: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[str]:
    for name, value in given.items():
        if str(name) in RESERVED_METRICS:
            yield f"'{name}' (counted already)"
        elif str(name) not in metrics:
            yield f"'{name}' ({brief(value)}, no number)"


def _flag(name: str, given: Any) -> bool:
    if isinstance(given, bool | np.bool_):
        return bool(given)
    number = _one(given)
    if number not in (0.0, 1.0):
        raise StepResultError(f"`step` gave {brief(given)} as {name}, expected true or false")
    return bool(number)


def _one(given: Any) -> float | None:
    """What is one number, in whatever container; else None."""
    if given is None or isinstance(given, str | bytes | complex | Mapping):
        return None
    if isinstance(given, numbers.Real):
        return float(given)
    try:
        array = np.asarray(given)
        if array.size != 1 or array.dtype.kind not in "fiubO":
            return None
        alone = array.reshape(()).item()
        return None if alone is None or isinstance(alone, str | bytes) else float(alone)
    except Exception:  # of whatever class the environment gives
        return None
