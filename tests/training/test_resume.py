"""A resumed run is the same run, unless its environment cannot be saved."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from dreamerjax.monitoring.progress import Progress
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import has_checkpoint, restore_raw
from dreamerjax.training import saving
from tests.training.small_runs import assert_same_run, assert_same_state, config, metrics, newest, play

pytestmark = pytest.mark.usefixtures("shared_programs")


def test_checkpoints_leave_no_trace_in_the_run(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a checkpoint is written depends on the clock, so it must not show."""
    steps, save = [], checkpoint.save

    def save_some(folder: Path, step: int, *rest: Any, **options: Any) -> None:
        steps.append(step)
        if step % 20 == 0:  # to save time
            save(folder, step, *rest, **options)

    monkeypatch.setattr(checkpoint, "save", save_some)
    monkeypatch.setattr(saving, "PAUSE_BETWEEN_SAVES", 0)  # however long one takes
    play(tmp_path, config("--log.checkpoint-seconds=1e-9", "--log.checkpoints-kept=2"))
    assert set(steps) >= set(range(17, 61)), "after every step"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0000000040", "0000000060"]
    assert_same_run(tmp_path, uninterrupted)


INTERRUPTIONS: dict[str, Callable[[int, Progress | None], bool]] = {
    "in the prefill": lambda looks, progress: looks == 9,
    "before the first update": lambda looks, progress: progress is not None and progress.env_steps == 17,
    "between two lines of metrics": lambda looks, progress: progress is not None and progress.updates == 8,
    "in an evaluation": lambda looks, progress: (
        progress is not None and progress.phase == "evaluating" and progress.env_steps == 40
    ),
    "in the last evaluation": lambda looks, progress: (
        progress is not None and progress.phase == "evaluating" and progress.updates == 44
    ),
}


@pytest.mark.parametrize("when", INTERRUPTIONS)
def test_resuming_equals_no_interruption(tmp_path: Path, uninterrupted: Path, when: str) -> None:
    first = play(tmp_path, config(), INTERRUPTIONS[when])
    assert first.summary["stopped"] == "interrupted"
    assert has_checkpoint(tmp_path / "checkpoints")
    assert metrics(tmp_path) == metrics(uninterrupted)[: len(metrics(tmp_path))]
    second = play(tmp_path, config())
    assert second.summary["stopped"] == "budget"
    steps, updates = first.summary["env_steps"], first.summary["updates"]
    told = [note for note in second.notes if not note.startswith(("Alert at", "Observation ", "Action: "))]
    assert told == [f"Resumed at {steps} environment steps and {updates} updates."]
    assert_same_run(tmp_path, uninterrupted)


def test_an_interruption_between_two_evaluations_shows_in_nothing(tmp_path: Path) -> None:
    """A promising evaluation is confirmed by a second one; both belong together."""
    solvable = config("--env.solve-return=1")

    def confirming(looks: int, progress: Progress | None) -> bool:
        nonlocal evaluating
        evaluating += progress is not None and progress.phase == "evaluating"
        return evaluating > 25  # the first plays two episodes of 8 to 11 steps

    evaluating = 0
    assert play(tmp_path / "halves", solvable, confirming).summary["stopped"] == "interrupted"
    for path in (tmp_path / "halves", tmp_path / "whole"):
        summary = play(path, solvable).summary
        assert (summary["stopped"], summary["solved_at"]["env_steps"]) == ("solved", 20)
    assert_same_run(tmp_path / "halves", tmp_path / "whole")


def test_many_interruptions_equal_none(tmp_path: Path, uninterrupted: Path) -> None:
    for _ in range(20):
        if play(tmp_path, config(), lambda looks, progress: looks == 40).summary["stopped"] == "budget":
            break
    else:
        pytest.fail("no progress")
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    """Twice 60 steps are 120 steps; only the end of the first half also shows in its metrics."""
    for path, flags in ((tmp_path / "halves", ["--env-steps=60"]), (tmp_path / "halves", []), (tmp_path / "whole", [])):
        summary = play(path, config("--env-steps=120", *flags)).summary
        assert (summary["stopped"], summary["env_steps"]) == ("budget", 60 if flags else 120)
    outcomes = [
        [row for row in metrics(path) if "train/value_mean" not in row]
        for path in (tmp_path / "halves", tmp_path / "whole")
    ]
    assert [row for row in outcomes[0] if (row["step"], row.get("eval/episodes")) != (60, 3)] == outcomes[1]
    assert_same_state(tmp_path / "halves", tmp_path / "whole")


class Forgetful(CartPoleEnv, gymnasium.utils.EzPickle):
    """Its pickle says how it was made, and nothing of where it is."""

    def __init__(self) -> None:
        gymnasium.utils.EzPickle.__init__(self)
        super().__init__()


@pytest.fixture
def forgetful() -> Iterator[str]:
    gymnasium.register("Forgetful-v0", Forgetful)
    yield "gym:Forgetful-v0"
    del gymnasium.registry["Forgetful-v0"]


def test_an_environment_that_cannot_be_saved_starts_anew(tmp_path: Path, forgetful: str) -> None:
    settings = config(env=forgetful)
    first = play(tmp_path, settings, lambda looks, progress: progress is not None and progress.updates == 8)
    with np.load(newest(tmp_path) / "arrays.npz") as stored:
        before = {name: stored[name] for name in stored.files}
    cut = len(before["replay.reward"])  # rows so far; the next one will be the first of new episodes
    assert not before["replay.is_last"][-1].any(), "in the middle of an episode"
    learned = restore_raw(tmp_path / "checkpoints")[0]["params"]

    second = play(tmp_path, settings)
    assert second.notes[0].endswith("; new episodes begin: the environments cannot be saved.")
    assert (second.summary["stopped"], second.summary["env_steps"]) == ("budget", 60)
    assert second.summary["updates"] == 44
    assert first.summary["updates"] == 8
    with np.load(newest(tmp_path) / "arrays.npz") as stored:
        after = {name: stored[name] for name in stored.files}
    np.testing.assert_array_equal(after["replay.obs.state"][:cut], before["replay.obs.state"])
    assert after["replay.is_last"][cut - 1].all()
    assert not after["replay.is_terminal"][cut - 1].any(), "as by a time limit"
    assert after["replay.is_first"][cut].all()
    assert int((~after["replay.is_first"]).sum()) == 60, "a row for each environment step"
    episodes = [row["episode/length"] for row in metrics(tmp_path) if "episode/length" in row]
    assert sum(episodes) <= 60
    assert jax.tree.structure(learned) == jax.tree.structure(restore_raw(tmp_path / "checkpoints")[0]["params"])
