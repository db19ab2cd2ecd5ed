"""However a run ends, it is saved: errors, signals, a killed process."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gymnasium
import pytest

from dreamerjax import cli
from dreamerjax.monitoring.progress import Progress
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import contents, has_checkpoint, restore_raw
from dreamerjax.training import collector, evaluation, saving
from tests.training.small_runs import (
    FLAGS,
    CountingLearner,
    assert_same_run,
    config,
    metrics,
    play,
)

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize("disk", ["works", "is full"])
def test_whatever_ends_a_run_it_is_saved_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    def fails(*arguments: object) -> None:
        if disk == "is full":
            monkeypatch.setattr(contents, "write_contents", full)
        raise ZeroDivisionError("nobody foresaw it")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    play(tmp_path, config("--env-steps=30"))
    monkeypatch.setattr(CountingLearner, "update", fails)
    monkeypatch.setattr(evaluation.Evaluator, "close", fails)
    with pytest.raises(ZeroDivisionError, match="nobody foresaw it") as caught:
        play(tmp_path, config())
    (note,) = caught.value.__notes__
    steps = checkpoint.steps(tmp_path / "checkpoints")
    if disk == "works":
        assert max(steps) > 30
        assert note == f"Saved at {max(steps)} environment steps; the same command with --run-dir {tmp_path} goes on."
    else:
        assert max(steps) == 30
        assert "could not be written" in note
        assert note.endswith("The newest checkpoint is at 30 steps.")


def test_an_error_of_the_thread_that_compiles_the_policy_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise MemoryError("the policy is too large")

    monkeypatch.setattr(collector.Collector, "compile_policy", fails)
    with pytest.raises(MemoryError, match="the policy is too large"):
        play(tmp_path, config())


ROOT = Path(__file__).parents[2]


SIGNALLING = """
import os, pathlib
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Signalling(CartPoleEnv):
    '''Sends signals to its own process at one of its steps.'''

    steps = 0

    def step(self, action):
        self.steps += 1
        at, *signals = os.environ.get("SIGNALS", "0").split()
        if self.steps == int(at):
            pathlib.Path(os.environ["SIGNALLED"]).touch()
            for number in signals:
                os.kill(os.getpid(), int(number))
        return super().step(action)

gymnasium.register("Signalling-v0", Signalling)
"""


# As run.py, but JAX runs before the back-end is selected, as it does in the tests' own process. With the flags that
# `select_backend` would give to XLA, the last bits would differ, and programs that are compiled already be of no use.
# A checkpoint that took long, on a busy machine, would put off the next one: here each is due when it is asked for.
COMMAND_LINE = (
    "import jax, sys; jax.devices(); from dreamerjax.training import saving; saving.PAUSE_BETWEEN_SAVES = 0; "
    "from dreamerjax.cli import command_line; command_line()"
)


@pytest.fixture
def signalling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An environment in a module of its own, for this process and its children."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "signalling.py").write_text(SIGNALLING)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield "gym:signalling:Signalling-v0"
    gymnasium.registry.pop("Signalling-v0", None)
    sys.modules.pop("signalling", None)


class Ended(NamedTuple):
    code: int
    output: str
    errors: str


def train_and_signal(tmp_path: Path, arguments: list[str], step: int, *numbers: int, before: str = "") -> Ended:
    """Runs the command line, after some other code, in a process that gets signals at a step of its environment."""
    marker = tmp_path / "signalled"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + COMMAND_LINE, *arguments],
        cwd=ROOT,
        env=os.environ | {"SIGNALS": " ".join(map(str, (step, *numbers))), "SIGNALLED": str(marker)},
        capture_output=True,
        text=True,
    )
    assert marker.exists(), done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def command(tmp_path: Path, signalling: str) -> list[str]:
    """A complete command line, and the run folder as its last argument."""
    return ["--env", signalling, "--backend", "cpu", *FLAGS, "--run-dir", str(tmp_path / "run")]


# The updates are compiled, but the thread that does it never ends.
ENDLESS_COMPILATION = (
    "import threading; from dreamerjax.training.learner import Learner; compile_updates = Learner._compile; "
    "Learner._compile = lambda *given: (compile_updates(*given), threading.Event().wait()); "
)


def test_sigterm_while_compiling_saves_and_ends_without_waiting(tmp_path: Path, command: list[str]) -> None:
    ended = train_and_signal(tmp_path, command, 9, signal.SIGTERM, before=ENDLESS_COMPILATION)
    assert (ended.code, ended.errors) == (128 + signal.SIGTERM, "")
    assert "Interrupted" in ended.output
    run = tmp_path / "run"
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 9
    assert not (run / ".pid").exists(), "the folder was given back"
    assert cli.main(command) == 0
    assert cli.main([*command[:-1], str(tmp_path / "whole")]) == 0
    assert_same_run(run, tmp_path / "whole")


def test_a_second_signal_ends_at_once(tmp_path: Path, command: list[str]) -> None:
    ended = train_and_signal(tmp_path, command, 9, signal.SIGTERM, signal.SIGINT)
    assert ended.code == 128 + signal.SIGINT
    assert re.fullmatch(
        r"Ended at once, without saving: the [89] environment steps of this run are lost\.\n", ended.errors
    )
    assert not (tmp_path / "run" / "summary.json").exists(), "it ended before it could save"
    assert not has_checkpoint(tmp_path / "run" / "checkpoints")


def test_a_second_signal_says_what_is_saved(tmp_path: Path, command: list[str]) -> None:
    assert cli.main([*command, "--env-steps", "20"]) == 0
    ended = train_and_signal(tmp_path, [*command, "--env-steps", "40"], 12, signal.SIGINT, signal.SIGINT)
    assert ended.code == 128 + signal.SIGINT
    assert ended.errors.startswith("Ended at once: what was learned up to 20 environment steps is saved in ")
    assert f"the same command with --run-dir {tmp_path / 'run'} goes on." in ended.errors
    assert len(ended.errors.splitlines()) == 1
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [20]


def test_a_killed_run_resumes_with_the_same_command(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    always = [*command, "--log.checkpoint-seconds=1e-9"]
    ended = train_and_signal(tmp_path, always, 24, signal.SIGKILL)
    assert ended.code == -signal.SIGKILL
    _, restored = restore_raw(tmp_path / "run" / "checkpoints")
    assert restored.step == 23
    assert restored.skipped == ()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 23, "upd')  # the line that it was about to write
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "Resumed at 23 environment steps" in capsys.readouterr().out
    assert cli.main([*command[:-1], str(tmp_path / "whole")]) == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(looks: int, progress: Progress | None) -> bool:
        if progress is not None and progress.updates == 8:
            raise KeyboardInterrupt  # as if killed: nothing is saved
        return False

    with monkeypatch.context() as patch:
        patch.setattr(saving.Saver, "rescue", lambda *given: "")
        with pytest.raises(KeyboardInterrupt):
            play(tmp_path, config(), dies)
    assert metrics(tmp_path)
    assert not checkpoint.has_checkpoint(tmp_path / "checkpoints")
    play(tmp_path, config())
    assert_same_run(tmp_path, uninterrupted)
