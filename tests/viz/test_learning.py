"""The verdict on a run's returns, for synthetic runs of every kind."""

import math
from typing import Any

import pytest

from dreamerjax.config import Config
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine
from dreamerjax.viz.learning import judge_learning

GOAL = 475.0


def settings(goal: float | None = GOAL, **layer: Any) -> Config:
    more = {key.replace("__", "."): value for key, value in layer.items()}
    return combine([*read_env("cartpole"), {"env.solve_return": goal}, more])


def run(
    means: list[float],
    *,
    random: tuple[float, ...] = (18.0, 25.0, 20.0, 22.0),
    std: float = 10.0,
    episodes: int = 20,
    updates: int = 1000,
) -> list[dict[str, Any]]:
    """Episodes of random actions, then evaluations every 500 steps."""
    lines: list[dict[str, Any]] = [
        {"step": 20 * n, "update": 0, "wall_seconds": 0.1, "episode/return": ret} for n, ret in enumerate(random, 1)
    ]
    for n, mean in enumerate(means, 1):
        evaluation = {"eval/return_mean": mean, "eval/return_std": std, "eval/episodes": episodes}
        lines.append({"step": 500 * n, "update": updates * n // len(means), "wall_seconds": 1.0 * n, **evaluation})
    return lines


@pytest.mark.parametrize(
    ("means", "options", "goal", "word", "level", "expected"),
    [
        # Learned.
        ([20, 100, 300, 490], {}, GOAL, "solved", "ok", "The last evaluation, 490.0, reaches the goal of 475."),
        (
            [20, 100, 200, 300],
            {},
            None,
            "learned",
            "ok",
            "The return, 300.0, is above the 21.2 of random actions; it still rises",
        ),
        ([20, 100, 200, 300], {}, GOAL, "learned", "ok", "below the goal of 475; it still rises."),
        ([20, 300, 301, 300, 299], {}, None, "learned", "ok", "it has levelled off"),
        ([20, 300, 301, 300, 299], {}, GOAL, "stalled", "warning", "below the goal of 475; it has levelled off."),
        ([100, 300, 100, 300, 100, 300], {"std": 1.0}, None, "learned", "warning", "it goes up and down"),
        (
            [-554, -145, -58, -16],
            {"random": (-200, -180, -230)},
            None,
            "learned",
            "ok",
            "is above the -203.3 of random",
        ),
        # Did not learn.
        (
            [21, 20, 23, 22],
            {},
            GOAL,
            "did not learn",
            "warning",
            "the return, 22.0, is no better than the 21.2 of random",
        ),
        (
            [9, 9, 9, 9],
            {"std": 0.5},
            GOAL,
            "did not learn",
            "warning",
            "the return, 9.0, is below the 21.2 of random actions",
        ),
        (
            [5, 5, 5],
            {"random": (), "std": 0.0},
            None,
            "did not learn",
            "warning",
            "no better than the 5.0 of the first",
        ),
        ([20, 60, 22, 40], {"std": 100.0, "episodes": 4}, GOAL, "did not learn", "warning", "no better"),
        # One or two episodes are too few to estimate the spread: that of random actions counts.
        ([20, 23, 19, 24], {"std": 0.0, "episodes": 1}, None, "did not learn", "warning", "no better than"),
        (
            [20, 100, 300, 490],
            {"std": 0.0, "episodes": 1},
            None,
            "learned",
            "ok",
            "The return, 490.0, is above the 21.2",
        ),
        # Collapsed, or declined.
        (
            [20, 300, 490, 200, 60],
            {},
            GOAL,
            "collapsed",
            "warning",
            "reached 490.0 after 1,500 environment steps, from the 21.2 of",
        ),
        ([20, 300, 490, 480, 350], {}, GOAL, "declined", "warning", "and fell to 350.0."),
        # Too short to judge.
        ([], {}, GOAL, "not evaluated", "unclear", "There is no evaluation yet."),
        ([20, 22], {"updates": 40}, GOAL, "too short to judge", "unclear", "40 updates: too little to judge learning"),
        (
            [20],
            {"random": ()},
            GOAL,
            "too short to judge",
            "unclear",
            "One evaluation and no episodes of random actions",
        ),
        ([20, 200], {"updates": 40}, GOAL, "learned", "ok", "The return, 200.0, is above the 21.2"),
    ],
)
def test_verdicts(
    means: list[float], options: dict[str, Any], goal: float | None, word: str, level: str, expected: str
) -> None:
    found = judge_learning(run(means, **options), settings(goal))
    assert (found.word, found.verdict.level) == (word, level), found.verdict.sentence
    assert expected in found.verdict.sentence


def test_updates_of_only_the_world_model_do_not_count() -> None:
    lines = run([20, 21])
    assert judge_learning(lines, settings()).word == "did not learn"
    assert judge_learning(lines, settings(train__world_model_warmup=950)).word == "too short to judge"
    assert judge_learning(lines, settings(agent__optimizer__warmup_updates=2000)).word == "too short to judge"
    assert judge_learning(lines, settings(train__mode="world_model")).word == "not judged"


def test_the_last_of_two_evaluations_at_one_step_counts() -> None:
    """The final evaluation replaces the regular one."""
    lines = run([20, 100, 490])
    closing = lines[-1] | {"eval/return_mean": 450.0, "eval/episodes": 100}
    assert judge_learning([*lines, closing], settings()).word == "learned"


def test_nan_returns_are_ignored() -> None:
    lines = [*run([20, 100, 490]), {"step": 2000, "update": 1, "wall_seconds": 1.0, "eval/return_mean": math.nan}]
    assert judge_learning(lines, settings()).word == "solved"
