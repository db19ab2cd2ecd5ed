"""Training runs: files, summary, output, resumption, images, disk storage, faulty environments."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from dreamerjax import cli
from dreamerjax.config import flatten
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.checkpoint import restore_raw
from dreamerjax.runs.settings import KEYS, combine, read_yaml
from tests.cli.commands import EVALUATION, contents, user_error


def test_ctrl_c_before_training_creates_no_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dreamerjax.cli.training.inspect_env", interrupted)
    assert cli.main(["--env", "cartpole"]) == 130
    assert contents(here) == {}


# A whole run


def test_the_files_of_a_run_folder(trained: Path) -> None:
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard"} <= {
        path.name for path in trained.iterdir()
    }
    assert not list(trained.glob(".tmp-*"))
    assert not (trained / ".pid").exists()

    stored = yaml.safe_load((trained / "config.yaml").read_text())
    assert set(flatten(stored)) == set(KEYS), "complete"
    config = combine([read_yaml(trained / "config.yaml")])
    assert (config.env.name, config.env.id, config.train.env_steps) == ("cartpole", "gym:CartPole-v1", 60)
    assert (config.agent.model.deter, config.agent.precision) == (16, "float32")

    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert list(line)[:3] == ["step", "update", "wall_seconds"]
    for name in ("step", "update", "wall_seconds"):
        series = [line[name] for line in lines]
        assert series == sorted(series)
    names = {name for line in lines for name in line}
    assert {"episode/return", "episode/length", "speed/updates_per_second", "speed/env_steps_per_second"} <= names
    assert {f"eval/{name}" for name in EVALUATION} <= names
    assert {"train/reconstruction_loss", "train/actor_loss", "train/critic_loss"} <= names
    assert read_metrics(trained / "metrics.jsonl")[-1]["step"] == 60

    events = list((trained / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 2, "one for each process that trained"
    assert b"episode/return" in min(events).read_bytes()
    assert all(b"eval/return_mean" in file.read_bytes() for file in events)
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["0000000040", "0000000060"]


def test_the_summary_of_a_run(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    expected = {
        *("env", "seed", "backend", "device", "versions", "git_commit", "env_steps", "updates", "wall_seconds"),
        *("compile_seconds", "solved", "solved_at", "eval"),
    }
    assert expected <= set(summary)
    assert set(summary["eval"]) == EVALUATION
    assert (summary["env"], summary["seed"], summary["backend"]) == ("cartpole", 0, "cpu")
    assert (summary["env_steps"], summary["updates"], summary["stopped"]) == (60, 44, "budget")
    assert (summary["solved"], summary["solved_at"]) == (False, None)
    assert summary["eval"]["episodes"] == 3
    assert summary["versions"]["jax"] == jax.__version__
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]


def test_the_final_paragraph_of_a_run(here: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained, "run")
    capsys.readouterr()
    assert cli.main(["--run-dir", "run", "--env-steps", "60", "--env.solve-return", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Resumed at 60 environment steps and 44 updates." in out
    assert "Solved: cartpole reaches a mean return of" in out
    assert "Everything is in run." in out
    assert "python run.py eval --run-dir run --episodes 100" in out
    assert "\x1b" not in out, "no terminal, no escape codes"
    summary = json.loads((here / "run/summary.json").read_text())
    assert summary["solved"] is True
    assert set(summary["solved_at"]) == {"env_steps", "updates", "wall_seconds"}


def test_a_resumed_run_continues_to_a_larger_budget(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    lines = (here / "run/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert cli.main([*tiny, "--run-dir", "run", "--env-steps", "80"]) == 0
    assert "Resumed at 60 environment steps" in capsys.readouterr().out
    summary = json.loads((here / "run/summary.json").read_text())
    assert (summary["env_steps"], summary["updates"]) == (80, 64)
    assert (here / "run/metrics.jsonl").read_bytes().startswith(lines)
    assert yaml.safe_load((here / "run/config.yaml").read_text())["train"]["env_steps"] == 80


# Images, disk storage and faulty environments


def test_training_from_pixels_makes_films_and_resumes(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    image = ["--env.image.height", "32", "--env.image.width", "48"]
    arguments = [*tiny, "--obs", "pixels", *image, "--run-dir", "seen", "--log.video-every", "30"]
    assert cli.main(arguments) == 0
    films = {path.name for path in (here / "seen" / "videos").iterdir()}
    assert films == {f"00000000{step}_{name}.mp4" for step in (30, 40) for name in ("episode", "dream_image")}
    assert "Filmed: seen/videos/0000000040_episode.mp4" in capsys.readouterr().out
    assert any(b"video/dream_image" in path.read_bytes() for path in (here / "seen").rglob("events.out.tfevents.*"))

    assert cli.main([*arguments, "--env-steps", "60"]) == 0, "resumed with the same flags"
    assert cli.main(["--run-dir", "seen", "--env-steps", "65"]) == 0, "resumed without flags"
    capsys.readouterr()
    assert cli.main(["eval", "--run-dir", "seen", "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    message = user_error(capsys, "--run-dir", "seen", "--obs", "state")
    assert "belongs to another environment or architecture: env.obs" in message


def test_a_replay_buffer_on_disk_is_resumed(here: Path, tiny: list[str]) -> None:
    image = ["--obs", "both", "--env.image.height", "16", "--env.image.width", "16"]
    arguments = [*tiny, *image, "--run-dir", "a", "--replay.storage", "disk"]
    assert cli.main(arguments) == 0
    (ring,) = (here / "a" / "replay").glob("*image.ring")
    stored = np.memmap(ring, np.uint8, "r", shape=(1000, 16, 16, 1))
    rows = np.flatnonzero(stored.any((1, 2, 3)))
    assert len(rows) >= 40
    assert cli.main([*arguments, "--env-steps", "60"]) == 0
    assert len(np.flatnonzero(stored.any((1, 2, 3)))) >= 60


def test_a_run_is_saved_when_its_environment_raises(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment raises at step 30; the run resumes from there with new episodes."""
    monkeypatch.setenv("FAULT_ONCE", str(here / "mark"))
    monkeypatch.setattr("tests.envs.faulty_envs.FAULTY_STEP", 30)
    monkeypatch.setattr("tests.envs.faulty_envs.LENGTH", 50)
    arguments = [*tiny[2:], "--env", "tests.envs.faulty_envs:raises", "--run-dir", "a", "--eval.every", "0"]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "tests.envs.faulty_envs:raises: it raised RuntimeError: the arm is stuck (copy 0, step 30)." in error
    assert restore_raw(here / "a" / "checkpoints")[1].step == 29
    assert cli.main(arguments) == 0
    assert "Resumed at 29 environment steps" in capsys.readouterr().out


def test_interrupted_episodes_are_reported_and_counted(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*tiny[2:], "--env", "tests.envs.faulty_envs:shows_nan", "--run-dir", "a"]
    assert cli.main(arguments) == 2
    assert "the observation 'state' is not finite" in capsys.readouterr().err
    arguments += ["--env.on-bad-observation", "skip-episode"]
    assert cli.main(arguments) == 2
    assert (
        "Episodes to evaluate, 12 of 12, were cut short. The last: tests.envs.faulty_envs:s" in capsys.readouterr().err
    )
    monkeypatch.setattr("tests.envs.faulty_envs.LENGTH", 6)
    assert cli.main([*arguments, "--env-steps", "60"]) == 0
    rows = read_metrics(here / "a" / "metrics.jsonl")
    counted = [row["env/interruptions"] for row in rows if "env/interruptions" in row]
    assert counted == list(range(1, len(counted) + 1))
    assert len(counted) >= 2, "every episode of the first 20 steps, at its step 7"
