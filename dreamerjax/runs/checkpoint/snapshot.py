"""The contents of a checkpoint."""

from typing import Any, NamedTuple

import numpy as np


class Snapshot(NamedTuple):
    """The state of a run at one environment step."""

    train_state: Any  # a pytree of arrays: TrainState
    arrays: dict[str, np.ndarray]  # the replay
    host: dict[str, Any]  # JSON-able; tuples come back as lists
    opaque: bytes = b""  # never unpickled here


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read: one or two lines that say what to do."""


def prefixed(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Names the arrays of one part of a run so that they do not clash with those of other parts."""
    return {prefix + name: array for name, array in arrays.items()}


def unprefixed(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays that `prefixed` named, out of all arrays of a checkpoint."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
