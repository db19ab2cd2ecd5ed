"""Processes of workers: Ctrl-C, and the end of their parent."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dreamerjax.envs import VectorEnv
from tests.envs.worker_envs import SHARED_MEMORY, made

SCRIPT = """
import multiprocessing, sys, time
import numpy as np
from dreamerjax.config import EnvConfig
from dreamerjax.envs import make_env

def report(*words):
    print(*words, flush=True)

def children():
    return {child.pid for child in multiprocessing.active_children()}

if __name__ == "__main__":
    config = EnvConfig(id=sys.argv[1], workers=2)
    if "twice" in sys.argv:
        try:
            report("starting")
            make_env(config, num_envs=2, seed=0)
        except KeyboardInterrupt:
            report("interrupted")
    leaving = children()  # workers of the first attempt may still be exiting
    env = make_env(config, num_envs=2, seed=0)
    workers = children() - leaving
    assert len(workers) == 2, workers
    env.reset()
    try:
        report("stepping")
        while True:
            env.step(np.eye(2, dtype=np.float32))
    except KeyboardInterrupt:
        report("interrupted")
    env.reset()
    assert children() - leaving == workers, "the same processes"
"""


@contextlib.contextmanager
def running(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program with workers, in a separate process group; it must leave no shared memory."""
    script, before = tmp_path / "script.py", sorted(SHARED_MEMORY.glob("*"))
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert sorted(SHARED_MEMORY.glob("*")) == before


def said(process: subprocess.Popen[str]) -> str:
    """The next word printed by the program."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_only_the_parent_handles_ctrl_c(tmp_path):
    with running(tmp_path, "tests.envs.faulty_envs:is_slow_to_make", "twice") as process:
        for doing in ("starting", "stepping"):
            assert said(process) == doing
            time.sleep(0.5)
            os.killpg(process.pid, signal.SIGINT)
            assert said(process) == "interrupted"
        assert process.communicate() == ("", "")  # when the last process of the group has exited
    assert process.returncode == 0


class Stop(BaseException):
    """Instead of KeyboardInterrupt, which pytest handles itself."""


def test_after_ctrl_c_at_any_moment_workers_answer_the_right_request():
    def stop(number, frame):
        raise Stop

    previous = signal.signal(signal.SIGINT, stop)
    try:
        with made("tests.envs.faulty_envs:Counting", num_envs=2, workers=2) as env:
            env.reset()
            for delay in np.random.default_rng(0).uniform(0.003, 0.01, 60):  # most of them are during an answer
                with pytest.raises(Stop):
                    step_until_stopped(env, delay)
                env.reset()
                assert not any(event.interrupted for event in env.take_events())
    finally:
        signal.signal(signal.SIGINT, previous)


def step_until_stopped(env: VectorEnv, seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        env.step(np.eye(2, dtype=np.float32))


def test_workers_end_with_a_parent_that_is_killed_even_if_they_hang(tmp_path):
    with running(tmp_path, "tests.envs.faulty_envs:hangs") as process:
        assert said(process) == "stepping"
        time.sleep(0.5)
        process.kill()
        assert process.communicate() == ("", "")
