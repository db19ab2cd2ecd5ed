"""Environments in worker processes: the same rows, errors and saved states as without."""

import multiprocessing
from copy import deepcopy

import numpy as np
import pytest

from dreamerjax.config import ImageConfig
from dreamerjax.envs import EnvError, StateError, make_env
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.envs.workers import WorkerVectorEnv
from tests.envs.faulty_envs import FAULTY_STEP
from tests.envs.scripted import assert_same
from tests.envs.worker_envs import CARTPOLE, config, made, play


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
