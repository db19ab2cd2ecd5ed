"""Environments in worker processes: the same rows as without, and none lost or mixed when a worker fails."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import EnvError, EnvEvent, EnvFailureError, StateError, VectorEnv, make_env
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.envs.worker_process import Worker
from dreamerjax.envs.workers import WorkerVectorEnv
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.ring import Ring
from dreamerjax.types import Rows
from tests.envs.faulty_envs import FAULTY_STEP, LENGTH
from tests.envs.scripted import assert_same

CARTPOLE = "gym:CartPole-v1"
SHARED_MEMORY = Path("/dev/shm")


def config(name: str, **options) -> EnvConfig:
    return EnvConfig(id=name if ":" in name else f"tests.envs.faulty_envs:{name}", **options)


@contextlib.contextmanager
def made(name: str, *, num_envs: int, seed: int = 0, **options) -> Iterator[VectorEnv]:
    """An environment, closed at the end; no process and no shared memory may remain."""
    before = set(multiprocessing.active_children()), sorted(SHARED_MEMORY.glob("*"))
    env = make_env(config(name, **options), num_envs=num_envs, seed=seed)
    try:
        yield env
    finally:
        env.close()
        env.close()  # a second call does nothing
        assert (set(multiprocessing.active_children()), sorted(SHARED_MEMORY.glob("*"))) == before


@pytest.fixture
def once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fault happens only in the first copy that reaches it, which makes the file."""
    mark = tmp_path / "happened"
    monkeypatch.setenv("FAULT_ONCE", str(mark))
    return mark


def play(env: VectorEnv, steps: int) -> tuple[dict[str, np.ndarray], list[EnvEvent]]:
    """The rows of `steps` random steps, [steps + 1, copies, ...], and the events."""
    replay = Replay(Ring(env.spaces, num_envs=env.num_envs, capacity=10_000), seed=0)
    generator = np.random.default_rng(1)
    replay.add(env.reset())
    events = []
    for _ in range(steps):
        rows = env.step(env.random_action(generator))
        replay.add(rows)
        happened = env.take_events()
        for event in happened:
            if event.metrics:
                assert rows.is_last[event.copy]
                assert rows.obs["state"][event.copy, 0] == event.metrics["episode"]
        assert sum(bool(event.metrics) for event in happened) == rows.is_last.sum()
        events += happened
    return replay.state()[0], events


def check_streams(rows: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Every copy's rows are whole episodes, one after the other, with the actions that led there.

    Returns:
        (copy, row) where an episode was cut short.
    """
    cut = []
    for copy in range(rows["reward"].shape[1]):
        episode, step, action = rows["obs.state"][:, copy].T
        first, last, terminal = (rows[f"is_{name}"][:, copy] for name in ("first", "last", "terminal"))
        assert first[0]
        for row in range(len(step)):
            if first[row]:
                assert (step[row], action[row]) == (0, -1)
                assert not rows["prev_action"][row, copy].any()
                assert rows["reward"][row, copy] == 0
                assert row == 0 or last[row - 1]
                assert row == 0 or episode[row] != episode[row - 1], "a new episode, not a repeated one"
            else:
                assert not last[row - 1]
                assert (episode[row], step[row]) == (episode[row - 1], step[row - 1] + 1)
                assert action[row] == rows["prev_action"][row, copy].argmax()
                assert rows["reward"][row, copy] == step[row]
            assert terminal[row] == (step[row] == LENGTH)
            if last[row] and not terminal[row]:
                cut.append((copy, row))
    return cut


def test_rows_are_those_of_the_same_copies_in_this_process():
    with made(CARTPOLE, num_envs=5, seed=5) as plain, made(CARTPOLE, num_envs=5, seed=5, workers=2) as spread:
        assert isinstance(spread, WorkerVectorEnv)
        assert spread.spaces == plain.spaces
        generator = np.random.default_rng(0)
        for seed in (None, 8):
            first = spread.reset(seed=seed)
            kept = deepcopy(first)
            assert_same(first, plain.reset(seed=seed))
            for _ in range(100):
                action = plain.random_action(generator)
                one, other = spread.step(action), plain.step(action)
                assert_same(one, other)
                assert [x.dtype for x in one[1:]] == [x.dtype for x in other[1:]]
            assert_same(first, kept)
            spread._workers[0].ask("reset", 77)  # the answer is not read, as after an interrupt
        with pytest.raises(ValueError, match=r"shape \(5,\), expected \[num_envs, A\] = \(5, 2\)"):
            spread.step(np.zeros(5, np.float32))


def test_there_are_no_more_workers_than_copies_and_images_come_through():
    with made(CARTPOLE, num_envs=2, workers=7, obs="both", image=ImageConfig(height=32, width=32)) as env:
        assert len(multiprocessing.active_children()) == 2
        rows = env.reset()
        assert (rows.obs["image"].shape, rows.obs["image"].dtype) == ((2, 32, 32, 3), np.uint8)
        assert len(np.unique(rows.obs["image"])) > 3


def test_workers_step_in_parallel(tmp_path, monkeypatch):
    monkeypatch.setenv("MEETING", str(tmp_path))
    with made("meets", num_envs=2, workers=2) as env:
        _, events = play(env, FAULTY_STEP)
        assert not events, "the step ends when both have started it"
        assert env.state() is None, "it has an attribute that cannot be pickled"


@pytest.mark.parametrize(
    ("fault", "options", "expected"),
    [
        ("raises", {}, "raised RuntimeError: the arm is stuck"),
        ("exits", {}, "died with exit code 3"),
        ("hangs", {"worker_timeout": 5.0}, "did not answer within 5 s"),
    ],
)
def test_a_fault_interrupts_its_workers_episodes_and_no_row_is_lost_or_mixed(once, fault, options, expected):
    steps, (seed, *_) = 40, np.random.SeedSequence((4, 1)).generate_state(1)  # of the first restart
    with made(fault, num_envs=4, seed=4, workers=2, **options) as env:
        rows, events = play(env, steps)
    assert once.exists()
    cut = check_streams(rows)
    assert cut in ([(0, FAULTY_STEP - 1), (1, FAULTY_STEP - 1)], [(2, FAULTY_STEP - 1), (3, FAULTY_STEP - 1)])
    copies = [copy for copy, _ in cut]
    (event,) = (event for event in events if event.interrupted)
    assert event.copy == copies[0]
    assert event.interrupted == (
        f"tests.envs.faulty_envs:{fault}: worker {copies[0] // 2} (copies {copies[0]} to {copies[1]}) {expected} "
        f"(step {FAULTY_STEP}); it was restarted, and its copies start new episodes."
    )
    # The other copies' rows are the same as without the fault, and these copies start new episodes.
    undisturbed, _ = play(SerialVectorEnv(config("well"), num_envs=4, seed=4), steps)
    restarted, _ = play(SerialVectorEnv(config("well"), num_envs=4, seed=int(seed)), steps - FAULTY_STEP)
    others = [copy for copy in range(4) if copy not in copies]
    for name, values in rows.items():
        np.testing.assert_array_equal(values[:, others], undisturbed[name][:, others])
        np.testing.assert_array_equal(values[: FAULTY_STEP - 1], undisturbed[name][: FAULTY_STEP - 1])
    np.testing.assert_array_equal(rows["obs.state"][FAULTY_STEP:, copies, :2], restarted["obs.state"][:, copies, :2])


def test_skipping_a_bad_observation_interrupts_one_copy_only(once):
    with made("shows_nan", num_envs=2, workers=2, on_bad_observation="skip-episode") as env:
        rows, events = play(env, 30)
    ((copy, row),) = check_streams(rows)
    assert row == FAULTY_STEP - 1
    (event,) = (event for event in events if event.interrupted)
    assert event.copy == copy
    assert "the observation 'state' is not finite: [nan" in event.interrupted
    assert event.interrupted.endswith(f"(copy {copy}, step {FAULTY_STEP}).")


def test_a_bad_observation_stops_the_run_with_its_message(once):
    with made("shows_nan", num_envs=2, workers=2) as env:
        with pytest.raises(
            EnvError,
            match=r"^tests.envs.faulty_envs:shows_nan: the observation 'state' is not finite: \[nan +7\. +[01]\.\] "
            rf"\(copy [01], step {FAULTY_STEP}\)\.$",
        ):
            play(env, 30)
        assert env.state() is None


@pytest.mark.parametrize(
    ("fault", "failures", "expected", "steps"),
    [
        ("raises", 2, "raised RuntimeError: the arm is stuck", 2 * FAULTY_STEP),
        ("exits", 1, "died with exit code 3", FAULTY_STEP),
        ("crashes", 1, f"was killed by signal {signal.SIGSEGV} (Segmentation fault)", FAULTY_STEP),
        ("hangs", 1, "did not answer within 5 s", FAULTY_STEP),
    ],
)
def test_repeated_failures_of_a_worker_stop_the_run_with_its_error(fault, failures, expected, steps):
    with made(fault, num_envs=1, workers=1, worker_timeout=5.0, worker_failures=failures) as env:
        assert env.state() is not None
        with pytest.raises(EnvError) as caught:
            play(env, 60)
        assert env.state() is None
    head, *trace, advice = str(caught.value).splitlines()
    assert head == (
        f"tests.envs.faulty_envs:{fault}: worker 0 (copy 0) {expected} (step {steps}); "
        f"failures in 5 minutes: {failures}."
    )
    for setting in (f"--env.worker-failures, now {failures}", "--env.worker-timeout, now 5 s", "--env.workers 0"):
        assert setting in advice
    if fault == "raises":
        assert trace[0] == "Traceback (most recent call last):"
        assert trace[-1] == "RuntimeError: the arm is stuck"
    if fault == "exits":
        assert not trace
    else:
        place = {"raises": "in _raise", "crashes": "in _crash", "hangs": "in _hang"}[fault]
        assert any(line.endswith(place) and "faulty_envs.py" in line for line in trace), "where it failed"


def test_only_failures_close_to_each_other_count_together(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    worker = Worker(config("raises"), 0, [0], 1)
    counts = []
    for now in (100.0, 150.0, 160.0, 161.0, 300.0):  # noqa: B007  # the clock reads it
        counts.append(worker.count_failure(60.0))
    assert counts == [1, 2, 3, 3, 1]


def test_a_worker_that_dies_between_steps_is_noticed():
    with made(CARTPOLE, num_envs=2, seed=3, workers=1) as env:
        first, action = env.reset(), np.eye(2, dtype=np.float32)

        def kill_and_step() -> Rows:
            (child,) = multiprocessing.active_children()
            child.kill()
            child.join()
            assert env.state() is None
            rows = env.step(action)
            assert rows.is_first.all()
            assert not rows.prev_action.any()
            (event,) = env.take_events()
            assert "was killed by signal 9 (Killed) (step 2)" in event.interrupted
            return rows

        env.step(action)
        begun = kill_and_step()
        rows = env.step(action)
        assert not rows.is_first.any()
        np.testing.assert_array_equal(rows.prev_action, action)
        assert env.take_events() == []
        assert_same(env.reset(), first)  # after any failure
        env.step(action)
        assert_same(kill_and_step(), begun)  # the same as after the reset before
        with pytest.raises(EnvError, match=r"the action is not finite: .* \(copy 1, step 3\)"):  # of the whole run
            env.step(action * np.array([[1], [np.nan]], np.float32))


def test_close_does_not_wait_for_a_worker_that_hangs():
    with made("hangs", num_envs=1, workers=1) as env:
        assert isinstance(env, WorkerVectorEnv)
        env.reset()
        for _ in range(FAULTY_STEP - 1):
            env.step(np.eye(2, dtype=np.float32)[:1])
        env._workers[0].ask("step", FAULTY_STEP)
        time.sleep(0.2)
        env.close()  # it hangs for longer than a test's time limit
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("name", ["gym:CartPool-v1", "talks"])
def test_user_errors_are_the_same_as_without_workers(name):
    with pytest.raises(EnvError) as expected:
        make_env(config(name), num_envs=1, seed=0)
    with pytest.raises(EnvError) as caught:
        make_env(config(name, workers=1), num_envs=1, seed=0)
    assert type(caught.value) is type(expected.value)
    assert str(caught.value) == str(expected.value)
    assert multiprocessing.active_children() == []


def test_the_error_of_an_environment_that_cannot_be_made_has_its_reason():
    with pytest.raises(EnvError) as caught:
        make_env(config("cannot_be_made", workers=1), num_envs=1, seed=0)
    message = str(caught.value)
    assert message.startswith("tests.envs.faulty_envs:cannot_be_made: worker 0 (copy 0) raised RuntimeError: no simul")
    assert "in cannot_be_made" in message
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_too_slow_to_start_is_an_error(monkeypatch):
    monkeypatch.setattr("dreamerjax.envs.workers.START_SECONDS", 0.05)
    with pytest.raises(
        EnvError, match=r"is_slow_to_make: worker 0 \(copy 0\) did not answer within 0.05 s during startup"
    ):
        make_env(config("is_slow_to_make", workers=1, worker_timeout=0.01), num_envs=1, seed=0)
    assert multiprocessing.active_children() == []


def test_resuming_is_exact():
    generator = np.random.default_rng(0)
    with made(CARTPOLE, num_envs=3, seed=3, workers=2) as env, made(CARTPOLE, num_envs=3, seed=9, workers=2) as fresh:
        env.reset()
        for _ in range(17):
            env.step(env.random_action(generator))
        state = env.state()
        assert state is not None
        fresh.load(state)
        starts = 0
        for _ in range(80):
            action = env.random_action(generator)
            rows = env.step(action)
            starts += rows.is_first.sum()
            assert_same(fresh.step(action), rows)
        assert starts >= 6
        for num_envs, env_id in ((2, CARTPOLE), (3, "gym:Acrobot-v1")):
            other = SerialVectorEnv(config(env_id), num_envs=num_envs, seed=0).state()
            assert other is not None
            with pytest.raises(StateError, match=f"has {num_envs} copies of {env_id}, expected 3"):
                fresh.load(other)
        for damaged in (b"", b"nonsense", state[:-40]):
            with pytest.raises(StateError, match=f"saved state of {CARTPOLE} cannot be read"):
                fresh.load(damaged)
        assert fresh.reset().is_first.all(), "a refused state changes nothing"
        assert fresh.take_events() == []


def test_a_state_can_be_loaded_with_any_number_of_workers():
    """From two processes to this one, and then to three."""
    generator = np.random.default_rng(0)
    serial = SerialVectorEnv(config(CARTPOLE), num_envs=3, seed=7)
    with made(CARTPOLE, num_envs=3, seed=3, workers=2) as two, made(CARTPOLE, num_envs=3, seed=9, workers=3) as three:
        two.reset()
        for _ in range(12):
            two.step(two.random_action(generator))
        for one, other in ((two, serial), (serial, three)):
            state = one.state()
            assert state is not None
            other.load(state)
            for _ in range(30):
                action = one.random_action(generator)
                assert_same(other.step(action), one.step(action))


def test_values_outside_their_bounds_are_reported_and_counted_with_workers():
    with made("tests.envs.faulty_envs:shows_what_is_outside", num_envs=2, workers=1) as env:
        env.reset()
        for _ in range(FAULTY_STEP):
            rows = env.step(np.float32([[1, 0], [1, 0]]))
        assert rows.obs["state"][:, 0].tolist() == [2e9, 2e9]
        events = env.take_events()
        assert sum(event.outside for event in events) == 2
        (note,) = [event.note for event in events if event.note]
        assert "number 0 is 2e+09, declared -1e+09 to 1e+09" in note
        assert env.descriptions == ("Observation state: a vector of 3 numbers.", "Action: one of 2.")


def test_end_episodes_reaches_the_right_worker():
    with made(CARTPOLE, num_envs=3, seed=3, workers=2) as env:
        env.reset()
        action = np.eye(2, dtype=np.float32)[[0, 1, 0]]
        env.step(action)
        env.end_episodes(np.array([False, False, True]))
        assert env.step(action).is_first.tolist() == [False, False, True]


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


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("shows_nan", r"the observation 'state' is not finite: \[nan"),
        ("shows_another_shape", r"the observation 'state' has shape \(2,\), expected \(3,\)"),
        ("shows_another_dtype", r"the observation 'state' has dtype <U1, expected numbers"),
    ],
)
def test_in_this_process_a_bad_observation_stops_the_run_or_interrupts_its_episode(fault, expected, once):
    env = SerialVectorEnv(config(fault), num_envs=2, seed=0)
    assert env.state() is not None
    with pytest.raises(EnvError, match=rf"tests.envs.faulty_envs:{fault}: {expected}.* \(copy 0, step {FAULTY_STEP}\)"):
        play(env, 20)
    assert env.state() is None, "some copies have not made this step"
    once.unlink()
    env = SerialVectorEnv(config(fault, on_bad_observation="skip-episode"), num_envs=2, seed=0)
    rows, events = play(env, 20)
    assert [event.copy for event in events if event.interrupted] == [0]
    assert check_streams(rows) == [(0, FAULTY_STEP - 1)]


def test_in_this_process_an_environments_error_has_its_traceback():
    env = SerialVectorEnv(config("raises"), num_envs=1, seed=0)
    assert env.state() is not None
    with pytest.raises(EnvFailureError) as caught:
        play(env, 20)
    assert env.state() is None
    head, *trace = str(caught.value).splitlines()
    assert head == "tests.envs.faulty_envs:raises: it raised RuntimeError: the arm is stuck (copy 0, step 7)."
    assert trace[-1] == "RuntimeError: the arm is stuck"
