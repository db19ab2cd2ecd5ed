"""`--init-from` and `export`: runs that start from other runs."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from dreamerjax import cli
from dreamerjax.runs.checkpoint import restore_raw
from dreamerjax.runs.settings import combine, read_yaml
from tests.cli.commands import contents, damage, user_error


def test_an_actor_trained_in_the_world_model_of_another_run(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*tiny, "--run-dir", "model", "--train.mode", "world_model"]) == 0
    before = contents(here / "model")
    start = ["--train.mode", "actor_critic", "--init-from", "model"]
    capsys.readouterr()
    assert cli.main([*tiny, "--run-dir", "actor", *start]) == 0
    assert "Starts from model at 40 environment steps." in capsys.readouterr().out
    assert contents(here / "model") == before
    model, actor = (restore_raw(here / name / "checkpoints")[0] for name in ("model", "actor"))
    jax.tree.map(np.testing.assert_array_equal, model["params"]["world_model"], actor["params"]["world_model"])
    for part in ("actor", "critic"):
        pairs = zip(*(jax.tree.leaves(state["params"][part]) for state in (model, actor)), strict=True)
        assert any((left != right).any() for left, right in pairs), f"the {part} has learned"
    assert json.loads((here / "actor/summary.json").read_text())["updates"] == 24

    # The same command again resumes the run; it does not start from --init-from again.
    assert cli.main([*tiny, "--run-dir", "actor", *start]) == 0
    out = capsys.readouterr().out
    assert "Resumed at 40 environment steps" in out
    assert "Starts from" not in out


def test_init_from_another_architecture_or_environment_gives_an_error(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    error = user_error(capsys, *tiny, "--agent.model.deter", "32", "--init-from", trained)
    assert "agent.model.deter: 16 there, 32 here" in error
    error = user_error(capsys, *tiny, "--env", "gym:Acrobot-v1", "--init-from", trained)
    assert "env.id: gym:CartPole-v1 there, gym:Acrobot-v1 here" in error
    assert contents(trained) == before
    assert contents(here) == {}


def test_a_fork_and_a_resumed_run_print_changed_settings(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "source")
    capsys.readouterr()
    fork = [
        "--run-dir",
        "fork",
        "--init-from",
        "source",
        "--env-steps",
        "17",
        "--backend",
        "cpu",
        "--log.video-every=0",
    ]
    assert cli.main([*fork, "--seed", "5", "--agent.critic.learning-rate", "1e-5", "--no-log.report"]) == 0
    out = capsys.readouterr().out
    assert "Starts from source at 60 environment steps." in out
    (line,) = (line for line in out.splitlines() if line.startswith("Its settings, but for "))
    for change in ("seed: 0 -> 5", "agent.critic.learning_rate: 0.001 -> 1e-05", "train.env_steps: 60 -> 17"):
        assert change in line
    assert "The budget of 17 environment steps allows" in out
    stored, source = (combine([read_yaml(here / name / "config.yaml")]) for name in ("fork", "source"))
    assert stored.agent.model == source.agent.model
    assert (stored.train.ratio, stored.eval.every) == (8, 20), "its parent's, not those of cartpole"

    assert cli.main(["--run-dir", "fork", "--agent.critic.learning-rate", "2e-5", "--recipe", "laptop"]) == 0
    out = capsys.readouterr().out
    assert "Settings that have changed since: agent.critic.learning_rate: 1e-05 -> 2e-05." in out
    assert "--recipe changes nothing" in out


def test_an_export_cannot_be_resumed_but_can_be_forked(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", "--run-dir", str(trained), "--out", "given"]) == 0
    before = contents(here)
    error = user_error(capsys, "--run-dir", "given")
    assert "given cannot be resumed: its checkpoint 60 holds weights only, as an export does." in error
    assert "--init-from given" in error
    assert contents(here) == before
    quiet = ["--env-steps", "17", "--backend", "cpu", "--log.video-every=0", "--no-log.report"]
    assert cli.main(["--init-from", "given", "--run-dir", "run", *quiet]) == 0


def test_init_from_skips_a_damaged_checkpoint_with_a_note(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "source")
    damage(here / "source/checkpoints/0000000060")
    capsys.readouterr()
    assert cli.main([*tiny, "--run-dir", "run", "--init-from", "source", "--env-steps", "17"]) == 0
    out = capsys.readouterr().out
    assert "heckpoint 60 is damaged" in out
    assert "Starts from source at 40 environment steps." in out
