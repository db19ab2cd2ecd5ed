"""How commands end: pipes and terminals that close, signals, full disks, errors while programs compile."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamerjax.runtime.background import Background, any_running
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.output import LostOutputError, Output
from tests.cli.commands import TINY

ROOT = Path(__file__).parents[2]


def child(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """A Python process; warnings are errors in it, too."""
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


# Standard output


HELP, TABLE = ["eval", "--help"], ["lineage", "dreamerjax/examples"]
FULL = "error: The output cannot be written: No space left on device.\n"


@pytest.mark.parametrize(
    ("arguments", "output", "code", "said"),
    [
        (["--help"], closed_pipe, 141, ""),
        (HELP, closed_pipe, 141, ""),
        (TABLE, closed_pipe, 141, ""),
        (HELP, full_disk, 2, FULL),
        (TABLE, full_disk, 2, FULL),
        (["eval"], closed_pipe, 2, "error: the following arguments are required: --run-dir.\n"),
    ],
    ids=["print", "argparse", "rich", "argparse, full disk", "rich, full disk", "a mistake, which is heard"],
)
def test_no_command_stumbles_over_its_output(
    arguments: list[str], output: Callable[[], int], code: int, said: str
) -> None:
    stdout = output()
    with child("run.py", *arguments, stdout=stdout) as process:
        os.close(stdout)
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == code, errors
    assert errors.startswith(said)
    assert (errors == "") == (said == "")


SHOWING = """
import sys
from dreamerjax.monitoring.progress import Progress
from dreamerjax.monitoring.terminal import Display
from dreamerjax.runtime.interrupt import Interrupt

display = Display("x", plain_every_seconds=0.02)
with Interrupt(before_exit=display.close) as interrupt, display:
    display.update(Progress("training", 1, 10, 0, 0.0))
    while not interrupt.requested:
        pass
    display.note("a note")
    print("whatever an environment prints")
    display.finish("the end")
print("after it")
sys.exit(interrupt.requested)
"""


def test_a_display_whose_pipe_closes() -> None:
    """Nobody calls `update` again: the lines that come by themselves find out."""
    with child("-c", SHOWING, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "training" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")


@pytest.mark.parametrize("hangs_up", [True, False], ids=["its terminal", "another's terminal"])
def test_a_display_whose_terminal_closes(hangs_up: bool) -> None:
    """With SIGHUP where the terminal is its own; else the panel that is drawn finds out."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
    script = (
        SHOWING if not hangs_up else f"import os; os.setsid(); os.close(os.open(os.ttyname(1), os.O_RDWR))\n{SHOWING}"
    )
    with child("-c", script, stdin=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        screen = b""
        while b"training" not in screen:
            screen += os.read(ours, 4096)
        os.close(ours)
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (129, "")


def test_what_is_written_after_a_loss_goes_nowhere() -> None:
    told = list[LostOutputError]()
    with os.fdopen(closed_pipe(), "w") as file, contextlib.redirect_stdout(file):
        output = Output(told.append)
        with contextlib.redirect_stdout(output):  # pyright: ignore[reportArgumentType]
            for _ in range(3):
                print("a line", flush=True)
        print("after it", flush=True)
    assert told == [output.lost]
    assert (str(told[0]), told[0].exit_code) == ("Broken pipe", 141)


def test_a_character_that_the_output_does_not_have_is_no_loss(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as file, contextlib.redirect_stdout(file):
        output = Output(lambda lost: None)
        with pytest.raises(UnicodeEncodeError):
            output.write("ä")
        assert output.lost is None
        file.close()
        output.write("a")
        assert output.lost is not None


# Signals


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGHUP, signal.SIGHUP], 129),
        ([signal.SIGTERM, signal.SIGHUP], 143),
        ([signal.SIGHUP, signal.SIGTERM], 129),
    ],
)
def test_signals_ask_for_an_end(numbers: list[signal.Signals], code: int) -> None:
    handlers = [signal.getsignal(number) for number in numbers]
    with Interrupt() as interrupt:
        assert interrupt.requested is None
        for number in numbers:
            os.kill(os.getpid(), number)
        assert interrupt.requested == code
    assert [signal.getsignal(number) for number in numbers] == handlers


def test_under_nohup_a_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


# Work in the background


def test_work_in_the_background_is_seen_until_it_ends() -> None:
    go_on = threading.Event()
    work = Background(lambda: print(end="" if go_on.wait() else "?"))
    assert work.running
    assert not work.daemon, "Python must not end before it"
    assert any_running()
    go_on.set()
    work.wait()
    assert not work.running
    assert not any_running()


def test_an_error_in_the_background_reaches_who_asks() -> None:
    def fails() -> None:
        raise MemoryError("too large")

    work = Background(fails)
    with pytest.raises(MemoryError, match="too large"):
        work.wait()
    with pytest.raises(MemoryError, match="too large"):
        _ = work.running


# Whole runs

ENVIRONMENTS = """
import time
from gymnasium.envs.classic_control import CartPoleEnv

class Failing(CartPoleEnv):
    '''Fails for good at its tenth step.'''

    steps = 0

    def step(self, action):
        Failing.steps += 1
        if Failing.steps >= 10:
            raise RuntimeError("out of order")
        return super().step(action)

    def reset(self, **options):
        if Failing.steps >= 10:
            raise RuntimeError("out of order")
        return super().reset(**options)

class Slow(CartPoleEnv):
    '''Slow enough that its run does not end by itself.'''

    def step(self, action):
        time.sleep(0.05)
        return super().step(action)
"""


@pytest.fixture
def trains(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    (tmp_path / "ending_envs.py").write_text(ENVIRONMENTS)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def start(env: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        flags = ["--backend", "cpu", "--config", tmp_path / "tiny.yaml", "--run-dir", tmp_path / "run", *arguments]
        return child(
            *("run.py", "--env", f"ending_envs:{env}", *flags),
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(tmp_path)} | environment,
        )

    return start


def test_an_environment_that_fails_while_programs_compile(trains: Callable[..., subprocess.Popen[str]], tmp_path: Path):
    with trains("Failing", JAX_ENABLE_COMPILATION_CACHE="false") as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    assert errors.startswith("error: ending_envs:Failing: it raised RuntimeError: out of order")
    assert errors.count("RuntimeError: out of order\n") <= 2, "once in words, once in its own traceback"
    assert errors.endswith(
        f"Saved at 9 environment steps; the same command with --run-dir {tmp_path / 'run'} goes on.\n"
    )


def test_a_run_whose_output_nobody_reads_any_more(trains: Callable[..., subprocess.Popen[str]], tmp_path: Path):
    with trains("Slow", "--env-steps", "2000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while " training " not in process.stdout.readline():
            pass
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 141, errors
    (sentence,) = errors.splitlines()
    assert sentence.startswith("Standard output was lost (Broken pipe): the run was saved at ")
    assert list((tmp_path / "run" / "checkpoints").iterdir())
