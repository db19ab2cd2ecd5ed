"""Run folders: one process at a time, files whole or absent, mistakes said in two lines."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dreamerjax import config
from dreamerjax.runs import run_folder
from dreamerjax.runs.run_folder import RunFolder, RunFolderError, default_run_folder, different_keys, read_config
from tests.system import without_privileges

HOLD = """
import sys
from pathlib import Path
from dreamerjax.runs.run_folder import RunFolder
with RunFolder.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A live process that holds the run folder."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_opening_makes_the_folder_and_says_where_things_are(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a"
    with RunFolder.open(path) as run:
        assert run.path == path
        assert names(path) == [".lock", ".pid"]
        assert run.config_path == path / "config.yaml"
        assert run.metrics_path == path / "metrics.jsonl"
        assert run.summary_path == path / "summary.json"
        assert run.checkpoints == path / "checkpoints"
        assert run.tensorboard == path / "tensorboard"
    assert ".pid" not in names(path)


def test_naming_the_files_touches_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a")
    assert run.report_path == tmp_path / "a" / "report.html"
    run.close()
    assert names(tmp_path) == []


def test_a_held_folder_is_refused_in_the_same_process(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        with pytest.raises(RunFolderError, match=f"process {os.getpid()} is training in it"):
            RunFolder.open(tmp_path)
        assert (tmp_path / ".pid").read_text() == f"{os.getpid()}\n"
    run.close()
    with RunFolder.open(tmp_path):
        pass


def test_a_folder_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunFolder.open(tmp_path):
        raise KeyboardInterrupt
    with RunFolder.open(tmp_path):
        pass


def test_a_live_process_is_named_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        for _ in range(2):
            with pytest.raises(RunFolderError) as caught:
                RunFolder.open(tmp_path)
            message = str(caught.value)
            assert message.startswith(f"{tmp_path} is in use: process {process.pid} is training in it.\n")
            assert "--run-dir" in message
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / ".pid").read_text() == f"{process.pid}\n"
        with RunFolder.open(tmp_path):
            assert (tmp_path / ".pid").read_text() == f"{os.getpid()}\n"


def test_an_unknown_holder(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path):
        (tmp_path / ".pid").write_text("?")
        with pytest.raises(RunFolderError, match="another process is training"):
            RunFolder.open(tmp_path)


@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_file_in_place_of_the_folder(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "a"
    file.write_text("mine")
    with pytest.raises(RunFolderError, match=f"{re.escape(str(file))}.* is not a folder.*--run-dir"):
        RunFolder.open(file / inside)
    assert file.read_text() == "mine"


def test_a_place_where_nothing_can_be_made() -> None:
    with pytest.raises(RunFolderError, match=r"/proc/dreamerjax/run.*--run-dir"):
        RunFolder.open(Path("/proc/dreamerjax/run"))


def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        for path in (tmp_path, tmp_path / "deeper"):
            with without_privileges(), pytest.raises(RunFolderError) as caught:
                RunFolder.open(path)
            assert str(caught.value).startswith(f"No permission to write to {path}")
            assert "--run-dir" in str(caught.value)
        assert names(tmp_path) == []
    finally:
        tmp_path.chmod(0o755)


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs" / "a"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 7_000_000))  # type: ignore[attr-defined]
    with pytest.raises(RunFolderError, match="7 MB free, expected 50 MB"):
        RunFolder.open(path)
    assert names(tmp_path) == []


def test_the_settings_come_back_as_they_were(tmp_path: Path) -> None:
    settings = {"seed": 0, "env": {"name": "gym:Acrobot-v1", "solve_return": None, "size": (64, 64)}, "rate": 4e-5}
    settings["tiny"] = 1e-20
    with RunFolder.open(tmp_path) as run:
        assert run.read_config() is None
        run.write_config(settings)
        assert run.read_config() == settings | {"env": settings["env"] | {"size": [64, 64]}}
        run.write_config({"seed": 1})
        assert run.read_config() == {"seed": 1}
    assert names(tmp_path) == [".lock", "config.yaml"]


def test_the_real_configuration_makes_the_trip(tmp_path: Path) -> None:
    whole = config.flatten(config.resolve(config.Config()))
    with RunFolder.open(tmp_path) as run:
        run.write_config(whole)
    stored = read_config(tmp_path)
    assert stored is not None
    assert different_keys(stored, whole) == []
    assert {key: type(value) for key, value in stored.items()} == {key: type(value) for key, value in whole.items()}


def test_looking_touches_nothing(tmp_path: Path) -> None:
    assert read_config(tmp_path / "missing") is None
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    before = (tmp_path.stat().st_mtime_ns, names(tmp_path))
    assert read_config(tmp_path) == {"seed": 3}
    assert read_config(tmp_path / "config.yaml") is None
    assert (tmp_path.stat().st_mtime_ns, names(tmp_path)) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nenv: {name: a\nrate: 2\n", r"config.yaml, line \d is not YAML: "),
        ("seed: 1\nenv: a: b\n", r"config.yaml, line 2 is not YAML: mapping values are not allowed here"),
        ("seed: !!python/object:os.system 1\n", r"config.yaml, line 1 is not YAML: could not determine a constructor"),
        ("", r"config.yaml holds no settings"),
        ("- a\n- b\n", r"config.yaml holds no settings"),
        ("\xff\xfe\x00", r"config.yaml is not YAML"),
    ],
)
def test_settings_that_do_not_parse(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(RunFolderError, match=message) as caught:
        read_config(tmp_path)
    assert len(str(caught.value).splitlines()) == 2


def test_settings_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(RunFolderError, match=r"config.yaml cannot be read: Is a directory"):
        read_config(tmp_path)


def test_the_summary_is_strict_json(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.write_summary({"solved": True, "eval": {"return_std": float("nan"), "returns": (1.0, float("inf"))}})
        text = run.summary_path.read_text()
    assert json.loads(text) == {"solved": True, "eval": {"return_std": None, "returns": [1.0, None]}}
    assert "NaN" not in text


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(tmp_path) as run:
        run.write_summary({"solved": False})

        def fail(_: int) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(RunFolderError, match=r"summary.json could not be written: No space left on device"):
            run.write_summary({"solved": True})
        monkeypatch.undo()
        assert json.loads(run.summary_path.read_text()) == {"solved": False}
    assert names(tmp_path) == [".lock", "summary.json"]


def test_default_names_are_safe_and_free(tmp_path: Path) -> None:
    first = default_run_folder("gym:ALE/Pong-v5", tmp_path)
    assert re.fullmatch(r"gym-ALE-Pong-v5-\d{8}-\d{6}", first.name)
    assert first.parent == tmp_path
    assert not first.exists()
    assert default_run_folder("../..", tmp_path).parent == tmp_path
    assert default_run_folder("cartpole").parent == Path("runs")


def test_a_taken_name_gets_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Frozen(run_folder.datetime.datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Frozen":
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_folder.datetime, "datetime", Frozen)
    found = []
    for _ in range(3):
        found.append(default_run_folder("cartpole", tmp_path))
        found[-1].mkdir()
    assert [path.name for path in found] == [
        "cartpole-20260102-030405",
        "cartpole-20260102-030405-2",
        "cartpole-20260102-030405-3",
    ]


def test_differences_read_well() -> None:
    stored = {"env.id": "gym:CartPole-v1", "agent.model.deter": 512, "size": [64, 64], "rate": 1.0, "old": None}
    current = {"env.id": "gym:CartPole-v1", "agent.model.deter": 256, "size": (64, 64), "rate": 1, "new": "x"}
    assert different_keys(stored, current) == [
        "agent.model.deter: 512 there, 256 here",
        "new: missing there, x here",
        "old: None there, missing here",
    ]
    assert different_keys(stored, stored) == []
