"""Whole runs: one seed one run, evaluations, the goal, the metrics."""

from pathlib import Path

import pytest

from dreamerjax.monitoring.metrics import read_metrics
from tests.training.small_runs import assert_same_run, config, metrics, play

pytestmark = pytest.mark.usefixtures("shared_programs")


def test_overlapped_collection_gives_the_same_run_twice_and_another_than_interleaved(tmp_path: Path) -> None:
    flags = ["--eval.every=0"]
    for name, collection in (("one", "overlapped"), ("two", "overlapped"), ("three", "interleaved")):
        run = play(tmp_path / name, config(*flags, f"--train.collection={collection}"))
        assert run.summary["updates"] == 44
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "three")


def test_the_lines_of_metrics_tell_the_wait_for_data_and_the_memory(tmp_path: Path) -> None:
    run = play(tmp_path, config())
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "speed/data_wait_share" in row]
    assert rows
    assert all(0 <= row["speed/data_wait_share"] < 1 and row["speed/memory_mb"] > 10 for row in rows)
    assert any(row["speed/data_wait_share"] > 0 for row in rows)
    assert run.summary["first_update_seconds"] > 0


@pytest.mark.usefixtures("only_counting")
def test_evaluations_come_when_due_and_at_the_end(tmp_path: Path) -> None:
    play(tmp_path, config())
    evaluations = [(row["step"], row["eval/episodes"]) for row in metrics(tmp_path) if "eval/episodes" in row]
    assert evaluations == [(20, 2), (40, 2), (60, 2), (60, 3)]


@pytest.mark.usefixtures("only_counting")
def test_a_solved_run_ends_early_and_stays_ended(tmp_path: Path) -> None:
    for _ in range(2):
        run = play(tmp_path, config("--env.solve-return=1"))
        summary = run.summary
        assert run.last_progress.phase == "solved"
        assert (summary["stopped"], summary["solved"], summary["env_steps"]) == ("solved", True, 20)
        assert summary["solved_at"]["env_steps"] == 20
        assert summary["eval"]["episodes"] == 3, "confirmed by as many episodes as count"
    evaluations = [(row["step"], row["eval/episodes"]) for row in metrics(tmp_path) if "eval/episodes" in row]
    assert evaluations == [(20, 2), (20, 3)]


@pytest.mark.usefixtures("only_counting")
def test_a_solved_run_goes_on_if_it_shall(tmp_path: Path) -> None:
    summary = play(tmp_path, config("--env.solve-return=1", "--no-stop-when-solved")).summary
    assert (summary["stopped"], summary["solved"], summary["env_steps"]) == ("budget", True, 60)
    assert summary["solved_at"]["env_steps"] == 20


@pytest.mark.usefixtures("only_counting")
def test_a_goal_out_of_reach_and_no_goal(tmp_path: Path) -> None:
    for goal in ("501", "none"):
        summary = play(tmp_path / goal, config(f"--env.solve-return={goal}")).summary
        assert (summary["stopped"], summary["solved"], summary["solved_at"]) == ("budget", False, None)


def test_the_same_seed_gives_the_same_run(tmp_path: Path, uninterrupted: Path) -> None:
    play(tmp_path, config())
    assert_same_run(tmp_path, uninterrupted)
    names = {name for row in metrics(tmp_path) for name in row}
    assert {"train/reconstruction_loss", "train/actor_loss", "episode/return", "eval/return_mean"} <= names


def test_another_seed_gives_another_run(tmp_path: Path, uninterrupted: Path) -> None:
    play(tmp_path, config("--seed=1"))
    left, right = metrics(tmp_path), metrics(uninterrupted)
    assert left != right
    name = "train/reconstruction_loss"
    losses = [{row[name] for row in rows if name in row} for rows in (left, right)]
    assert losses[0]
    assert losses[1]
    assert not losses[0] & losses[1]
