"""Environments as bytes: what a checkpoint keeps of episodes under way, where the environment can be pickled.

Each copy is a pickle of its own, so a run that is resumed with another number of workers goes on where it was. An
environment is other people's code: whatever goes wrong while it is written means that there is no such state, and
whatever goes wrong while it is read is a `StateError`, after which the run begins new episodes.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamerjax.envs import StateError


class _Saved(NamedTuple):
    """The outer pickle, of plain things."""

    env_id: str
    steps: int  # since the reset
    ended: list[bool]  # [copies] whose next row is a first one
    copies: list[bytes]  # a pickle each


def write(env_id: str, steps: int, ended: np.ndarray, envs: Sequence[gymnasium.Env]) -> bytes | None:
    """The state of all copies, or None if they cannot be written."""
    # EzPickle stores how an environment was made, not where it is: it would come back, but elsewhere.
    if any(isinstance(layer, gymnasium.utils.EzPickle) for layer in _layers(envs[0])):
        return None
    copies = []
    for env in envs:
        written = io.BytesIO()
        try:
            _Pickler(written).dump(env)
        except Exception:
            return None
        copies.append(written.getvalue())
    return pickle.dumps(tuple(_Saved(env_id, steps, ended.tolist(), copies)))


def read(state: bytes, env_id: str, num_envs: int) -> tuple[int, np.ndarray, list[gymnasium.Env]]:
    """The steps since the reset, which copies have ended, and the environments, out of what `write` gave.

    Raises:
        StateError: it is of another environment or another number of copies, or cannot be read.
    """
    saved = _checked(state, env_id, num_envs)
    envs: list[gymnasium.Env] = []
    try:
        for written in saved.copies:
            envs.append(pickle.loads(written))
    except Exception as error:
        for env in envs:
            env.close()
        raise StateError(f"The saved state of {env_id} cannot be read: {type(error).__name__}: {error}") from error
    return saved.steps, np.array(saved.ended, bool), envs


def merge(states: Sequence[bytes], env_id: str) -> bytes:
    """One state of what several workers wrote, in the order of their copies."""
    parts = [_opened(state, env_id) for state in states]
    ended = [one for part in parts for one in part.ended]
    return pickle.dumps(tuple(_Saved(env_id, parts[0].steps, ended, [one for part in parts for one in part.copies])))


def share(state: bytes, env_id: str, copies: slice) -> bytes:
    """The part of a state that one worker reads.

    Raises:
        StateError: it cannot be read.
    """
    saved = _opened(state, env_id)
    return pickle.dumps(tuple(saved._replace(ended=saved.ended[copies], copies=saved.copies[copies])))


def check(state: bytes, env_id: str, num_envs: int) -> int:
    """How many steps the copies of a state have made since the reset.

    Raises:
        StateError: it is of another environment or another number of copies, or cannot be read.
    """
    return _checked(state, env_id, num_envs).steps


def _checked(state: bytes, env_id: str, num_envs: int) -> _Saved:
    saved = _opened(state, env_id)
    if (saved.env_id, len(saved.copies)) != (env_id, num_envs):
        raise StateError(
            f"The saved state is of {len(saved.copies)} copies of {saved.env_id}, expected {num_envs} of {env_id}."
        )
    return saved


def _opened(state: bytes, env_id: str) -> _Saved:
    try:
        return _Saved(*pickle.loads(state))
    except Exception as error:
        raise StateError(f"The saved state of {env_id} cannot be read: {type(error).__name__}: {error}") from error


class _Pickler(pickle.Pickler):
    """Leaves out what takes much room and says little.

    Those are the windows of pygame, which an environment opens again where it finds none, and the bounds of a picture,
    which a space keeps for each pixel (2.9 MB of the 600 x 400 that CartPole draws).
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__.partition(".")[0] == "pygame":
            return _nothing, ()
        if type(obj) is gymnasium.spaces.Box and obj.dtype == np.uint8:
            return gymnasium.spaces.Box, (obj.low.min(), obj.high.max(), obj.shape, np.uint8)
        return NotImplemented


def _nothing() -> None:
    return None


def _layers(env: gymnasium.Env) -> Sequence[gymnasium.Env]:
    """An environment's wrappers from the outermost in, and the environment itself."""
    layers = [env]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        layers.append(env)
    return layers
