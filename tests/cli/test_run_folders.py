"""Run folders: of other runs, in use, not writable, full, damaged."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from dreamerjax import cli
from dreamerjax.monitoring.metrics import MetricsWriter
from dreamerjax.runs import run_folder
from dreamerjax.runs.checkpoint import restore_raw
from tests.cli.commands import ROOT, contents, damage, run_error, user_error
from tests.system import without_privileges


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ("--env gym:Acrobot-v1", ["env.id: gym:CartPole-v1 there, gym:Acrobot-v1 here"]),
        ("--agent.model.deter 32", ["agent.model.deter: 16 there, 32 here"]),
        ("--agent.model.bins 41 --agent.model.hidden 16", ["bins: 31 there, 41 here", "hidden: 8 there, 16 here"]),
        ("--env cartpole --size 12m", ["deter: 16 there, 2048 here", "hidden: 8 there, 256 here"]),
    ],
)
def test_the_folder_of_another_run_is_not_changed(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str], arguments: str, keys: list[str]
) -> None:
    before = contents(trained)
    error = user_error(capsys, *arguments.split(), "--run-dir", trained)
    assert "belongs to another environment or architecture" in error
    for key in keys:
        assert key in error
    assert contents(trained) == before


def test_a_settings_file_can_also_differ_from_the_run(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yaml").write_text("agent: {model: {groups: 8}}")
    before = contents(trained)
    assert "groups: 4 there, 8 here" in user_error(capsys, "--config", "mine.yaml", "--run-dir", trained)
    assert contents(trained) == before


def test_a_folder_in_use_by_another_process_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    hold = (
        "import sys, pathlib, dreamerjax.runs.run_folder as r\n"
        "with r.RunFolder.open(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(here / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        before = contents(here)
        error = user_error(capsys, *tiny, "--run-dir", here / "run")
        assert f"{here / 'run'} is in use: process {process.pid} is training in it." in error
        assert contents(here) == before
        process.kill()


def test_a_folder_without_write_permission_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    here.chmod(0o555)
    try:
        with without_privileges():
            error = user_error(capsys, "--env", "cartpole", "--run-dir", here / "run")
    finally:
        here.chmod(0o755)
    assert str(here / "run") in error
    assert "ermission" in error
    assert contents(here) == {}


def test_a_run_folder_that_cannot_be_created_gives_an_error(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    assert "/proc/dreamerjax/run" in user_error(capsys, *tiny, "--run-dir", "/proc/dreamerjax/run")


def test_a_file_as_the_run_folder_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run").write_text("mine")
    assert "is not a folder" in user_error(capsys, *tiny, "--run-dir", "run")
    assert (here / "run").read_text() == "mine"
    assert "is no run folder" in user_error(capsys, "eval", "--run-dir", "run")
    (here / "a" / "checkpoints").mkdir(parents=True)
    (here / "a" / "config.yaml").touch()
    assert "Did you mean a?" in user_error(capsys, "eval", "--run-dir", "a/checkpoints")


def test_a_full_disk_at_the_start_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    assert "No space for a run" in user_error(capsys, *tiny, "--run-dir", here / "run")
    assert contents(here) == {}


def test_a_full_disk_at_a_checkpoint_gives_an_error(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, "run")
    before = contents(here / "run/checkpoints")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("dreamerjax.runs.checkpoint.store._write", full)
        error = run_error(capsys, "--run-dir", "run", "--env-steps", "62")
    assert "Checkpoint 62 could not be written" in error
    assert "no space left" in error
    assert "Older checkpoints are intact" in error
    assert contents(here / "run/checkpoints") == before
    assert cli.main(["--run-dir", "run", "--env-steps", "62"]) == 0


def test_a_full_disk_at_metrics_gives_an_error(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, "run")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MetricsWriter, "write", full)
    assert "No space left on device" in run_error(capsys, "--run-dir", "run", "--env-steps", "62")


def test_a_damaged_config_in_the_run_folder_gives_an_error(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    (here / "run/config.yaml").write_text("seed: 1\ntrain: {ratio: 8\n")
    for command in (["--env", "cartpole"], ["eval"]):
        assert "config.yaml, line 3 is not YAML" in user_error(capsys, *command, "--run-dir", "run")
    (here / "run/config.yaml").write_text("sede: 1\n")
    assert "unknown key `sede`" in user_error(capsys, "--run-dir", "run")


def test_a_damaged_checkpoint_is_skipped_with_a_note(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    damage(here / "run/checkpoints/0000000060")
    capsys.readouterr()
    assert cli.main(["eval", "--run-dir", "run", "--episodes", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["episodes"] == 1
    assert err.startswith("note: checkpoint 60 is damaged")
    assert cli.main(["--run-dir", "run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Checkpoint 60 is damaged" in out
    assert "using 40" in out
    assert "Resumed at 40 environment steps" in out
    assert json.loads((here / "run/summary.json").read_text())["env_steps"] == 60
    assert restore_raw(here / "run/checkpoints")[1].skipped == (), "the damaged one was replaced"


def test_a_run_with_only_damaged_checkpoints_gives_an_error(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    for path in (here / "run/checkpoints").iterdir():
        damage(path)
    before = contents(here / "run")
    assert "is damaged" in run_error(capsys, "--run-dir", "run")
    assert "is damaged" in user_error(capsys, "eval", "--run-dir", "run")
    kept = {name: content for name, content in contents(here / "run").items() if not name.endswith(".lock")}
    assert kept == {name: content for name, content in before.items() if not name.endswith(".lock")}
    run_error(capsys, *tiny, "--run-dir", "new", "--init-from", "run")
    assert not (here / "new").exists()
