"""Environments as bytes: the state of unfinished episodes in a checkpoint, for environments that can be pickled.

Each environment is a separate pickle, so a run can resume with another number of workers. Pickling runs third-party
code. If writing fails, no state is saved. If reading fails, a `StateError` is raised and the run starts new episodes.
"""

import io
import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamerjax.envs import StateError


class _Saved(NamedTuple):
    """The content of the outer pickle, which contains only built-in types."""

    env_id: str
    steps: int  # since the reset
    ended: list[bool]  # [copies] whether the next row starts an episode
    copies: list[bytes]  # one pickle for each


def write(env_id: str, steps: int, ended: np.ndarray, envs: Sequence[gymnasium.Env]) -> bytes | None:
    """The state of all copies, or None if they cannot be pickled."""
    # EzPickle stores an environment's constructor arguments, but not its state.
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
    """Restores the result of `write`: the steps since the reset, which copies have ended, and the environments.

    Raises:
        StateError: the state is of another environment or another number of copies, or cannot be read.
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
    """Joins the states of several workers, in the order of their copies."""
    parts = [_opened(state, env_id) for state in states]
    ended = [one for part in parts for one in part.ended]
    return pickle.dumps(tuple(_Saved(env_id, parts[0].steps, ended, [one for part in parts for one in part.copies])))


def share(state: bytes, env_id: str, copies: slice) -> bytes:
    """The part of a state for one worker.

    Raises:
        StateError: the state cannot be read.
    """
    saved = _opened(state, env_id)
    return pickle.dumps(tuple(saved._replace(ended=saved.ended[copies], copies=saved.copies[copies])))


def check(state: bytes, env_id: str, num_envs: int) -> int:
    """Checks a state; returns its number of steps since the reset.

    Raises:
        StateError: the state is of another environment or another number of copies, or cannot be read.
    """
    return _checked(state, env_id, num_envs).steps


def _checked(state: bytes, env_id: str, num_envs: int) -> _Saved:
    saved = _opened(state, env_id)
    if (saved.env_id, len(saved.copies)) != (env_id, num_envs):
        raise StateError(
            f"The saved state has {len(saved.copies)} copies of {saved.env_id}, expected {num_envs} of {env_id}."
        )
    return saved


def _opened(state: bytes, env_id: str) -> _Saved:
    try:
        return _Saved(*pickle.loads(state))
    except Exception as error:
        raise StateError(f"The saved state of {env_id} cannot be read: {type(error).__name__}: {error}") from error


class _Pickler(pickle.Pickler):
    """Omits large objects that can be restored.

    These are pygame's windows, which environments reopen when needed, and the bounds of image spaces, which Gymnasium
    stores for each pixel (2.9 MB for CartPole's 600 x 400 pictures).
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
    """An environment's wrappers, outermost first, and the environment itself."""
    layers = [env]
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        layers.append(env)
    return layers
