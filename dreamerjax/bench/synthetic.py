"""Synthetic experience: random rows with episode starts and ends, in any number and size."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dreamerjax.config import ModelConfig, ReplayConfig
from dreamerjax.replay.replay import Replay, make_replay
from dreamerjax.types import ObsSpec, Rows, Spaces

EPISODE_LENGTH = 50  # rows, on average


def synthetic_rows(spaces: Spaces, *, num_envs: int, seed: int) -> Iterator[Rows]:
    """Rows without end: standard normal vectors and rewards, uniform uint8 images, random actions.

    Args:
        spaces: what the rows hold.
        num_envs: environments that are stepped together.
        seed: of all the numbers.

    Yields:
        The next step of all copies, [num_envs, ...]; one episode follows another, half of them end by a time limit.
    """
    generator = np.random.default_rng(seed)
    ended = np.ones(num_envs, bool)
    while True:
        is_first = ended
        is_last = ended = ~is_first & (generator.random(num_envs) < 1 / EPISODE_LENGTH)
        yield Rows(
            obs={spec.name: _observation(generator, spec, num_envs) for spec in spaces.obs},
            prev_action=np.where(is_first[:, None], np.float32(0), _action(generator, spaces, num_envs)),
            reward=np.where(is_first, 0.0, generator.normal(size=num_envs)).astype(np.float32),
            is_first=is_first,
            is_last=is_last,
            is_terminal=is_last & (generator.random(num_envs) < 0.5),
        )


def filled_replay(config: ReplayConfig, spaces: Spaces, *, num_envs: int, seed: int) -> Replay:
    """A replay that is full of synthetic rows.

    Args:
        config: its capacity and storage.
        spaces: what the rows hold.
        num_envs: environments that are stepped together.
        seed: of the rows and of the sampling.
    """
    config = dataclasses.replace(config, context=False, online=False)
    replay = make_replay(
        config, spaces, num_envs=num_envs, seed=seed, model=ModelConfig(), sequence_length=1, folder=Path()
    )
    rows = synthetic_rows(spaces, num_envs=num_envs, seed=seed)
    for _ in range(config.capacity // num_envs):
        replay.add(next(rows))
    return replay


def _observation(generator: np.random.Generator, spec: ObsSpec, num_envs: int) -> np.ndarray:
    shape = (num_envs, *spec.shape)
    choices = spec.classes or (256 if spec.is_image else 0)
    values = generator.integers(choices, size=shape) if choices else generator.normal(size=shape)
    return values.astype(spec.dtype)


def _action(generator: np.random.Generator, spaces: Spaces, num_envs: int) -> np.ndarray:
    parts = [
        np.eye(size, dtype=np.float32)[generator.integers(size, size=num_envs)]
        if kind == "discrete"
        else generator.normal(size=(num_envs, size)).astype(np.float32)
        for kind, size in spaces.actions
    ]
    return np.concatenate(parts, axis=-1)
