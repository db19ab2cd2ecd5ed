"""Whole runs with environments that keep less than Gymnasium promises, or of which there is only one."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from dreamerjax.envs import EnvError
from dreamerjax.monitoring.metrics import read_metrics
from tests.training.small_runs import config, counters, newest, play

pytestmark = pytest.mark.usefixtures("only_counting")


class Endless(gymnasium.Env):
    """Goes on and on, and soon leaves the bounds that it declares."""

    observation_space, action_space = Box(-1.0, 1.0, (3,), np.float32), Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> Any:
        self.time += 1
        return np.full(3, self.time / 10, np.float32), 1.0, False, False, {}


class OnlyOne(Endless):
    """Such as a simulator with one port."""

    alive: ClassVar[int] = 0
    made: ClassVar[int] = 0

    def __init__(self) -> None:
        if OnlyOne.alive:
            raise OSError("address already in use")
        OnlyOne.alive, OnlyOne.made = 1, OnlyOne.made + 1

    def step(self, action: int) -> Any:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, False, self.time == 7, info

    def close(self) -> None:
        OnlyOne.alive = 0


@pytest.fixture(autouse=True)
def registered() -> Any:
    OnlyOne.alive = OnlyOne.made = 0
    for maker in (Endless, OnlyOne):
        gymnasium.register(f"{maker.__name__}-v0", maker)
    yield
    for maker in (Endless, OnlyOne):
        gymnasium.registry.pop(f"{maker.__name__}-v0")


def of(name: str, *flags: str) -> Any:
    return config("--env.solve-return=none", *flags, env=f"gym:{name}-v0")


def test_an_evaluation_cuts_episodes_without_end_and_bounds_are_told_once(tmp_path: Path) -> None:
    run = play(tmp_path, of("Endless", "--eval.max-episode-steps=25", "--log.every=1"))
    assert run.summary["eval"] | {"return_std": 0} == {
        "episodes": 3,
        "episodes_cut": 3,
        "return_mean": 25.0,
        "return_std": 0,
        "return_min": 25.0,
        "return_max": 25.0,
        "length_mean": 25.0,
    }
    assert [note for note in run.notes if "were cut there" in note] == [
        "Of 2 episodes of the evaluation, 2 did not end within 25 steps and were cut there: their returns count up to "
        "then (--eval.max-episode-steps)."
    ]
    assert len([note for note in run.notes if "outside the bounds of its space" in note]) == 1
    outside = [row["env/outside_bounds"] for row in read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in row]
    assert outside == sorted(outside)
    assert outside[-1] in (run.summary["env_steps"] - 11, run.summary["env_steps"] - 10)
    assert run.notes[:2] == ["Observation state: a vector of 3 numbers.", "Action: one of 2."]

    again = play(tmp_path, of("Endless", "--eval.max-episode-steps=25", "--env-steps=80"))
    assert not [note for note in again.notes if "outside the bounds of its space" in note], (
        "once a run, whatever its processes"
    )


def test_the_environment_that_trains_can_evaluate(tmp_path: Path) -> None:
    run = play(tmp_path, of("OnlyOne", "--eval.in-training-env"))
    assert OnlyOne.made == 1
    assert (run.summary["env_steps"], run.summary["eval"]["length_mean"]) == (60, 7.0)
    rows = dict(np.load(newest(tmp_path) / "arrays.npz"))
    first, last = rows["replay.is_first"][:, 0], rows["replay.is_last"][:, 0]
    assert (first[1:] == last[:-1]).all(), "each episode that is cut ends, as by a time limit"
    assert not rows["replay.is_terminal"].any()
    evaluated = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl") if "eval/return_mean" in row]
    assert evaluated == [20, 40, 60, 60]
    assert len(first) == 60 + first.sum()


def test_where_there_can_be_only_one_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        EnvError, match=r"address already in use(.|\n)*--eval\.in-training-env evaluates in the one that"
    ):
        play(tmp_path, of("OnlyOne"))
    assert counters(tmp_path)["updates"], "nothing is lost"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("", "--env.workers=1", ""),
        ("--env.num-envs=2 --env.workers=2", "", ""),
        ("", "--env.num-envs=3", "The saved state has 1 copies of gym:CartPole-v1, expected 3"),
        ("--env.num-envs=3", "--env.num-envs=1 --env.workers=1", "The saved state has 3 copies"),
    ],
)
def test_a_run_is_resumed_with_other_workers_and_copies(tmp_path: Path, before: str, after: str, told: str) -> None:
    flags = before.split()
    first = play(tmp_path, config(*flags, "--env-steps=40"))
    stored = len(np.load(newest(tmp_path) / "arrays.npz")["replay.reward"].ravel())
    num_envs = [flag for flag in flags if "num-envs" in flag and "num-envs" not in after]
    run = play(tmp_path, config(*after.split(), *num_envs, "--env-steps=60"))
    (note,) = [note for note in run.notes if note.startswith("Resumed")]
    assert ("new episodes begin" in note) == bool(told)
    assert told in note
    assert run.summary["env_steps"] >= 60
    assert run.summary["updates"] > first.summary["updates"]
    assert len(np.load(newest(tmp_path) / "arrays.npz")["replay.reward"].ravel()) > stored
