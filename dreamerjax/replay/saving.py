"""Saved replays as plain arrays: checks, reads and cuts them for another number of environments.

A saved replay is one array [filled, num_envs, ...] for each column of the ring, in the order of its slots, and a
JSON-able dictionary. Arrays named `drawn...` or `returned...` are latent states that are not written back yet.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamerjax.config import ConfigError
from dreamerjax.types import Rows

Arrays = Mapping[str, np.ndarray]
Meta = Mapping[str, Any]


def columns_of(arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays that have one entry for each row."""
    return {name: array for name, array in arrays.items() if not name.startswith(("drawn", "returned"))}


def check_columns(arrays: Arrays, columns: Arrays) -> int:
    """Compares saved arrays with the columns of a ring.

    Returns:
        How many slots the arrays fill.

    Raises:
        ValueError: they are of other spaces or another number of environments.
    """
    expected = {name: (column.dtype, column.shape[1:]) for name, column in columns.items()}
    rows = columns_of(arrays)
    given = {name: (array.dtype, array.shape[1:]) for name, array in rows.items()}
    lengths = {len(array) for array in rows.values()}
    if given != expected or len(lengths) != 1:
        raise ValueError(f"The saved replay holds {given}, expected {expected}, all of one length.")
    return lengths.pop()


def in_time_order(head: int, length: int, steps: int) -> np.ndarray:
    """The slots of the newest `steps` steps, oldest first, of a ring that was saved with `length` slots filled."""
    return (head + np.arange(max(0, length - steps), length)) % max(length, 1)


def saved_rows(arrays: Arrays, meta: Meta, steps: int) -> Rows | None:
    """The newest rows of a saved replay.

    Args:
        arrays: as `Replay.state` returned them.
        meta: the dictionary that came with them.
        steps: of each environment, at most.

    Returns:
        Rows [steps, num_envs, ...] in the order of time. None: there are none, or the images are in other files.
    """
    if "reward" not in arrays or "slots" in meta:
        return None
    order = in_time_order(meta["head"], len(arrays["reward"]), steps)
    obs = {name.removeprefix("obs."): array[order] for name, array in arrays.items() if name.startswith("obs.")}
    return Rows(obs=obs, **{name: arrays[name][order] for name in Rows._fields if name != "obs"})


def regrouped(arrays: Arrays, meta: Meta, num_envs: int) -> tuple[Arrays, Meta]:
    """Changes the number of environments of a saved replay.

    The environments' rows are joined end to end, then cut into `num_envs` stretches of equal length; the oldest rows
    that are left over are dropped. Where rows of two environments meet, one episode ends as by a time limit and the
    next begins. Latent states on their way back and the online queue are dropped.

    Args:
        arrays: as `Replay.state` returned them.
        meta: the dictionary that came with them.
        num_envs: environments that are stepped together now.

    Raises:
        ConfigError: the images are in files, where rows cannot move.
    """
    length, before = arrays["reward"].shape
    if before == num_envs:
        return arrays, meta
    if "slots" in meta:
        raise ConfigError(
            f"env.num_envs is {num_envs}, expected {before} as before: with replay.storage disk, each environment's "
            "rows have a fixed place in the files."
        )
    order = in_time_order(meta["head"], length, length)
    kept = length * before // num_envs

    streams = {
        name: np.array(np.moveaxis(array[order], 1, 0)).reshape(length * before, *array.shape[2:])
        for name, array in columns_of(arrays).items()
    }
    begins = np.arange(0, length * before, max(length, 1))
    streams["is_last"][begins + length - 1] = True
    streams["is_first"][begins] = True
    streams["prev_action"][begins] = 0

    def cut(stream: np.ndarray) -> np.ndarray:
        newest = stream[len(stream) - kept * num_envs :]
        return np.moveaxis(newest.reshape(num_envs, kept, *stream.shape[1:]), 0, 1)

    regrouped_arrays = {name: cut(stream) for name, stream in streams.items()}
    return regrouped_arrays, {**meta, "head": 0, "drawn": 0, "returned": 0, "queue": []}
