"""Families and lineage: stored in checkpoints, printed as a tree, and checked before weights are loaded."""

import json
from pathlib import Path

import pytest
import yaml

from dreamerjax import cli
from dreamerjax.config import family_name
from dreamerjax.runs.checkpoint import read_host
from dreamerjax.runs.lineage import lineage_of
from dreamerjax.runs.load import read_settings
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine, nested
from dreamerjax.study.lineage_tree import find_members
from tests.training.small_runs import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a fork of it with another learning rate that was resumed with another entropy, and a fork of the fork."""
    folder = tmp_path_factory.mktemp("runs")
    settings = folder / "tiny.yaml"
    settings.write_text(yaml.safe_dump(nested(combine([*read_env("cartpole"), TINY, {"log.video_every": 0}]))))
    tiny = ["--env=cartpole", "--backend=cpu", "--config", str(settings)]
    a, b, c = (str(folder / name) for name in "abc")
    for command in (
        [*tiny, "--run-dir", a],
        [*tiny, "--run-dir", b, "--init-from", a, "--agent.actor.learning-rate=1e-5"],
        ["--run-dir", b, "--env-steps=80", "--agent.actor.entropy-scale=0.5"],
        [*tiny, "--run-dir", c, "--init-from", b, "--seed=7"],
    ):
        assert cli.main(command) == 0
    return folder


def host(run_dir: Path) -> dict:
    return read_host(run_dir / "checkpoints")[0]


def test_a_checkpoint_stores_family_and_lineage(runs: Path) -> None:
    a, b, c = (lineage_of(host(runs / name)) for name in "abc")
    assert [event.what for event in a] == ["begun"]
    assert [event.what for event in b] == ["begun", "forked", "resumed"]
    assert c[:3] == b
    fork, resumed = b[1:]
    assert (fork.parent, fork.run, fork.step) == (str(runs / "a"), str(runs / "b"), 60)
    assert fork.changed == {"agent.actor.learning_rate": [0.0004, 1e-05]}
    assert resumed.changed == {"train.env_steps": [60, 80], "agent.actor.entropy_scale": [0.003, 0.5]}
    assert resumed.step == 60
    config = read_settings(runs / "a")
    assert config is not None
    assert {host(runs / name)["family"]["fingerprint"] for name in "abc"} == {family_name(config)}


def test_a_setting_changed_on_resuming_has_effect(runs: Path) -> None:
    """The entropy scale is a knob in the train state, and the checkpoint contains the old value."""
    lines = [json.loads(line) for line in (runs / "b" / "metrics.jsonl").read_text().splitlines()]
    scales = {line["step"]: line["train/entropy_scale"] for line in lines if "train/entropy_scale" in line}
    assert [scale for step, scale in scales.items() if step < 60] == pytest.approx(
        [0.003] * sum(step < 60 for step in scales)
    )
    assert scales[80] == pytest.approx(0.5)


def test_lineage_prints_the_tree(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [member.run_dir.name for member in find_members(runs)] == ["a", "b", "c"]
    assert cli.main(["lineage", str(runs)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.replace("\n" + " " * 12, "").splitlines()]
    text = "\n".join(lines)
    a, b, c = (text.index(f"{runs}/{name}") for name in "abc")
    assert a < b < c
    for part in (
        "agent.actor.learning_rate: 0.0004 -> 1e-05",
        "resumed at 60 steps",
        "train.env_steps: 60 -> 80",
        "seed: 0 -> 7",
        "forked at 80",
    ):
        assert part in text


def test_a_fork_without_its_parent_names_it(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").symlink_to(runs / "b")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "checkpoints").symlink_to(runs / "c" / "checkpoints")
    assert cli.main(["lineage", str(tmp_path / "copy")]) == 0
    assert "forked from" in capsys.readouterr().out


def test_a_folder_without_runs_gives_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lineage", str(tmp_path)]) == 2
    assert "contains no run with a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval --run-dir {}", "show --run-dir {}", "--run-dir {} --env-steps 99"])
def test_a_checkpoint_of_another_architecture_gives_an_error(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The shapes are the same, so only the family differs, as after editing config.yaml or copying a checkpoint."""
    config = yaml.safe_load((runs / "a" / "config.yaml").read_text())
    config["agent"]["model"]["unimix"] = 0.5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "checkpoints").symlink_to(runs / "a" / "checkpoints")
    assert cli.main(command.format(tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert "agent.model.unimix: 0.01 there, 0.5 here" in error
    assert len(error.splitlines()) == 2


def test_a_fork_of_another_architecture_gives_an_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--env=cartpole", "--backend=cpu", "--init-from", str(runs / "a"), "--agent.model.hidden=16"]
    assert cli.main([*command, "--config", str(runs / "tiny.yaml"), "--run-dir", str(runs / "x")]) == 2
    assert "agent.model.hidden: 8 there, 16 here" in capsys.readouterr().err
    assert not (runs / "x").exists()
