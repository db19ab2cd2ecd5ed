"""Cost of the path from an environment to the replay, compared with stepping the environment directly: `bench --env`.

Both sides take the same random actions, in turn, in each round. The direct side loops over the environments' `step` and
`reset`. Our side calls `VectorEnv.step` and `Replay.add`, with all checks, the rows' arrays, and workers if requested.
The policy is not measured.
"""

import dataclasses
import statistics
import time
from typing import Any

import numpy as np
from rich.table import Table

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, VectorEnv, make_env, make_single
from dreamerjax.envs.actions import action_of
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.ring import Ring

COPIES = (1, 4, 16)
STEPS = 300  # of all copies, in a round
ROUNDS = 7


def measure_env(config: EnvConfig, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measures an environment with 1, 4 and 16 copies.

    Args:
        config: of the environment.
        rounds: of measuring.

    Returns:
        For each number of copies: medians over the rounds of `plain_steps_per_second`, `our_steps_per_second` (of all
        copies together) and `overhead_microseconds` (of one step of all copies, ours less plain), the latter's lowest
        and highest, too.

    Raises:
        EnvError: there is no such environment, or it cannot be stepped alone.
    """
    return [_measure(config, num_envs, rounds) for num_envs in COPIES]


def env_table(results: list[dict[str, Any]], name: str) -> Table:
    """The same for people."""
    table = Table(title=f"{name}: environment steps a second, all copies together, random actions")
    for column in ("num_envs", "plain Gymnasium", "to the replay", "overhead of one step of all copies"):
        table.add_column(column, justify="right")
    for r in results:
        table.add_row(
            str(r["num_envs"]),
            f"{r['plain_steps_per_second']:,.0f}",
            f"{r['our_steps_per_second']:,.0f}",
            f"{r['overhead_microseconds']:.0f} µs ({r['overhead_lowest']:.0f} to {r['overhead_highest']:.0f})",
        )
    return table


def _measure(config: EnvConfig, num_envs: int, rounds: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    plain = _Plain(config, num_envs)
    env = make_env(config, num_envs=num_envs, seed=0)
    replay = Replay(Ring(env.spaces, num_envs=num_envs, capacity=4 * STEPS * num_envs), seed=0)
    replay.add(env.reset())
    ours, theirs = [], []
    for number in range(rounds + 1):
        actions = [env.random_action(generator) for _ in range(STEPS)]
        seconds = (
            _seconds(lambda actions=actions: plain.run(actions)),
            _seconds(lambda actions=actions: _run(env, replay, actions)),
        )
        if number:  # the first round warms up
            theirs.append(seconds[0] / STEPS)
            ours.append(seconds[1] / STEPS)
    env.close()
    plain.close()
    overheads = [1e6 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    return {
        "env": config.id,
        "num_envs": num_envs,
        "workers": config.workers,
        "plain_steps_per_second": num_envs / statistics.median(theirs),
        "our_steps_per_second": num_envs / statistics.median(ours),
        "overhead_microseconds": statistics.median(overheads),
        "overhead_lowest": min(overheads),
        "overhead_highest": max(overheads),
    }


class _Plain:
    """Environments stepped in a loop; what comes out is thrown away."""

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        try:
            self._envs = [make_single(dataclasses.replace(config, workers=0)) for _ in range(num_envs)]
        except AttributeError as error:
            raise EnvError(
                f"{config.id} is stepped in batch, expected an environment that is stepped alone."
            ) from error
        self._action = action_of(self._envs[0].action_space, label=config.id)
        self._ended = [False] * num_envs
        for number, env in enumerate(self._envs):
            env.reset(seed=number)

    def run(self, actions: list[np.ndarray]) -> None:
        for action in actions:
            for number, (env, own) in enumerate(zip(self._envs, self._action.to_env(action), strict=True)):
                if self._ended[number]:
                    env.reset()
                    self._ended[number] = False
                else:
                    _, _, terminated, truncated, _ = env.step(own)
                    self._ended[number] = terminated or truncated

    def close(self) -> None:
        for env in self._envs:
            env.close()


def _run(env: VectorEnv, replay: Replay, actions: list[np.ndarray]) -> None:
    for action in actions:
        replay.add(env.step(action))


def _seconds(function: Any) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun
