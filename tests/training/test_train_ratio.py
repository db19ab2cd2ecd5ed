"""When updates are made: the prefill, the warm-up, and the train ratio to the row."""

from pathlib import Path

import pytest

from dreamerjax.monitoring.progress import Progress
from tests.training.small_runs import CountingLearner, config, counters, metrics, play

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize(
    ("ratio", "batch_size", "sequence_length", "updates", "num_envs"),
    [
        (8, 2, 4, 2, 1),
        (1, 2, 4, 1, 1),
        (0.3, 1, 2, 1, 1),
        (37.5, 3, 5, 2, 3),
        (200, 2, 4, 4, 2),
        (7, 2, 16, 3, 5),
    ],
)
def test_the_train_ratio_is_met_exactly(
    tmp_path: Path, ratio: float, batch_size: int, sequence_length: int, updates: int, num_envs: int
) -> None:
    run = play(
        tmp_path,
        config(
            f"--train-ratio={ratio}",
            f"--train.batch-size={batch_size}",
            f"--train.sequence-length={sequence_length}",
            f"--train.updates-per-dispatch={updates}",
            f"--env.num-envs={num_envs}",
            "--eval.every=0",
            "--log.every=1",
            "--env-steps=120",
        ),
    )
    dispatch, start = batch_size * sequence_length * updates, counters(tmp_path)["train_start"]
    learner = run.loop.learner
    assert isinstance(learner, CountingLearner)
    assert learner.rows == run.summary["updates"] * batch_size * sequence_length
    assert 120 <= run.summary["env_steps"] < 120 + num_envs
    missing = ratio * (run.summary["env_steps"] - start) - learner.rows
    assert 0 <= missing < dispatch

    history = [(row["step"], row["update"]) for row in metrics(tmp_path) if "train/loss" in row]
    assert len(history) == len(learner.modes), "a line for each dispatch"
    for step, update in history:
        replayed, earned = update * batch_size * sequence_length, ratio * (step - start)
        assert replayed <= earned, "never ahead"
        assert replayed + dispatch + ratio * num_envs > earned, "never behind by more than one step"


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize(
    ("prefill", "sequence_length", "num_envs", "start"), [(16, 4, 1, 16), (16, 4, 3, None), (0, 9, 1, 8), (8, 9, 1, 8)]
)
def test_the_prefill_ends_when_it_is_full_and_a_window_fits(
    tmp_path: Path, prefill: int, sequence_length: int, num_envs: int, start: int | None
) -> None:
    flags = [f"--train.prefill={prefill}", f"--train.sequence-length={sequence_length}", f"--env.num-envs={num_envs}"]
    play(tmp_path, config(*flags, "--eval.every=0", "--env.id=gym:Pendulum-v1"))  # its episodes are longer than this
    began = counters(tmp_path)["train_start"]
    assert prefill <= began < max(prefill, (sequence_length - 1) * num_envs) + num_envs
    assert start is None or began == start


@pytest.mark.usefixtures("only_counting")
def test_world_model_warmup_comes_first_and_is_not_counted(tmp_path: Path) -> None:
    flags = ["--train.world-model-warmup=6", "--log.every=1", "--eval.every=0"]
    run = play(tmp_path / "whole", config(*flags))
    learner = run.loop.learner
    assert isinstance(learner, CountingLearner)
    assert learner.asked == ("world_model", "joint")
    assert learner.modes == ["world_model"] * 3 + ["joint"] * 22
    assert run.summary["updates"] == 6 + 44
    assert counters(tmp_path / "whole")["warmup_updates"] == 6
    first = [(row["step"], row["update"]) for row in metrics(tmp_path / "whole") if "train/loss" in row][:4]
    assert first == [(16, 4), (16, 6), (18, 8), (20, 10)]  # each without its newest dispatch, not to wait for it

    def in_warmup(looks: int, progress: Progress | None) -> bool:
        return progress is not None and progress.updates == 4

    run = play(tmp_path / "halves", config(*flags), in_warmup)
    assert (run.summary["stopped"], run.summary["updates"]) == ("interrupted", 4)
    run = play(tmp_path / "halves", config(*flags))
    assert run.loop.learner.modes == ["world_model"] + ["joint"] * 22
    assert metrics(tmp_path / "halves") == metrics(tmp_path / "whole")


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize("mode", ["world_model", "actor_critic"])
def test_a_mode_is_the_only_one(tmp_path: Path, mode: str) -> None:
    flags = [f"--train.mode={mode}", "--train.world-model-warmup=6", "--eval.every=0"]
    learner = play(tmp_path, config(*flags)).loop.learner
    assert isinstance(learner, CountingLearner)
    assert learner.asked == (mode,)
    assert set(learner.modes) == {mode}
