"""Environments that fail, in workers and in this process: no row is lost or mixed, and errors have their reason."""

import multiprocessing
import signal
import time

import numpy as np
import pytest

from dreamerjax.envs import EnvError, EnvFailureError
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.envs.worker_process import Worker
from dreamerjax.envs.workers import WorkerVectorEnv
from dreamerjax.types import Rows
from tests.envs.faulty_envs import FAULTY_STEP
from tests.envs.scripted import assert_same
from tests.envs.worker_envs import CARTPOLE, check_streams, config, made, play


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
