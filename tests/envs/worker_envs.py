"""Environments in worker processes, and checks of their rows."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvEvent, VectorEnv, make_env
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.ring import Ring
from tests.envs.faulty_envs import LENGTH

CARTPOLE = "gym:CartPole-v1"
SHARED_MEMORY = Path("/dev/shm")


def config(name: str, **options) -> EnvConfig:
    return EnvConfig(id=name if ":" in name else f"tests.envs.faulty_envs:{name}", **options)


@contextlib.contextmanager
def made(name: str, *, num_envs: int, seed: int = 0, **options) -> Iterator[VectorEnv]:
    """An environment, closed at the end; no process and no shared memory may remain."""
    before = set(multiprocessing.active_children()), sorted(SHARED_MEMORY.glob("*"))
    env = make_env(config(name, **options), num_envs=num_envs, seed=seed)
    try:
        yield env
    finally:
        env.close()
        env.close()  # a second call does nothing
        assert (set(multiprocessing.active_children()), sorted(SHARED_MEMORY.glob("*"))) == before


def play(env: VectorEnv, steps: int) -> tuple[dict[str, np.ndarray], list[EnvEvent]]:
    """The rows of `steps` random steps, [steps + 1, copies, ...], and the events."""
    replay = Replay(Ring(env.spaces, num_envs=env.num_envs, capacity=10_000), seed=0)
    generator = np.random.default_rng(1)
    replay.add(env.reset())
    events = []
    for _ in range(steps):
        rows = env.step(env.random_action(generator))
        replay.add(rows)
        happened = env.take_events()
        for event in happened:
            if event.metrics:
                assert rows.is_last[event.copy]
                assert rows.obs["state"][event.copy, 0] == event.metrics["episode"]
        assert sum(bool(event.metrics) for event in happened) == rows.is_last.sum()
        events += happened
    return replay.state()[0], events


def check_streams(rows: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Every copy's rows are whole episodes, one after the other, with the actions that led there.

    Returns:
        (copy, row) where an episode was cut short.
    """
    cut = []
    for copy in range(rows["reward"].shape[1]):
        episode, step, action = rows["obs.state"][:, copy].T
        first, last, terminal = (rows[f"is_{name}"][:, copy] for name in ("first", "last", "terminal"))
        assert first[0]
        for row in range(len(step)):
            if first[row]:
                assert (step[row], action[row]) == (0, -1)
                assert not rows["prev_action"][row, copy].any()
                assert rows["reward"][row, copy] == 0
                assert row == 0 or last[row - 1]
                assert row == 0 or episode[row] != episode[row - 1], "a new episode, not a repeated one"
            else:
                assert not last[row - 1]
                assert (episode[row], step[row]) == (episode[row - 1], step[row - 1] + 1)
                assert action[row] == rows["prev_action"][row, copy].argmax()
                assert rows["reward"][row, copy] == step[row]
            assert terminal[row] == (step[row] == LENGTH)
            if last[row] and not terminal[row]:
                cut.append((copy, row))
    return cut
