"""Environments in this process: the arrival convention, actions, going on after a restart, and refusals."""

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from dreamerjax.envs import (
    EnvError,
)
from dreamerjax.types import ActionSpec, ObsSpec
from tests.envs.scripted import Forgetful, Scripted, Unpicklable, assert_same, float32, make

CLASSIC = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"]


def seeds_of(seed: int, num_envs: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(num_envs)]


@pytest.mark.parametrize("limit", [500, 7], ids=["terminated", "truncated"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_rows_are_arrivals_as_in_a_cartpole_stepped_by_hand(register, limit, num_envs):
    """Compares each copy's rows with `gymnasium.make`, stepped and reset by hand with the same actions."""
    env_id = register(gymnasium.spec("CartPole-v1").entry_point, limit=limit)
    env = make(env_id, num_envs=num_envs, seed=5)
    generator = np.random.default_rng(0)
    actions = [env.random_action(generator) for _ in range(120)]
    stream = [env.reset(), *(env.step(action) for action in actions)]

    for copy, seed in enumerate(seeds_of(5, num_envs)):
        by_hand = gymnasium.make("CartPole-v1", max_episode_steps=limit)
        no_action, ends = np.zeros(2), 0
        row = (by_hand.reset(seed=seed)[0], no_action, 0.0, True, False, False)
        for rows, action in itertools.zip_longest(stream, actions):
            np.testing.assert_array_equal(rows.obs["state"][copy], row[0])
            np.testing.assert_array_equal(rows.prev_action[copy], row[1])
            assert tuple(array[copy] for array in rows[2:]) == row[2:]
            if action is None:
                break
            if rows.is_last[copy]:  # the next row starts a new episode, with any action
                ends += 1
                row = (by_hand.reset()[0], no_action, 0.0, True, False, False)
            else:
                observation, reward, terminated, truncated, _ = by_hand.step(action[copy].argmax())
                row = (observation, action[copy], reward, False, terminated or truncated, terminated)
        assert ends >= 3
    time_limits = [rows.is_last & ~rows.is_terminal for rows in stream]
    assert np.any(time_limits) == (limit == 7)


def test_shapes_and_dtypes_of_rows():
    env = make("gym:Pendulum-v1", num_envs=4, seed=0)
    assert env.spaces == ((ObsSpec("state", (3,)),), (ActionSpec("continuous", 1),))
    for rows in (env.reset(), env.step(np.zeros((4, 1), np.float32))):
        assert (rows.obs["state"].shape, rows.obs["state"].dtype) == ((4, 3), np.float32)
        assert (rows.prev_action.shape, rows.prev_action.dtype) == ((4, 1), np.float32)
        assert (rows.reward.shape, rows.reward.dtype) == ((4,), np.float32)
        assert all(flag.shape == (4,) and flag.dtype == bool for flag in rows[3:])


def test_later_steps_do_not_change_earlier_rows():
    env = make("gym:CartPole-v1", num_envs=2, seed=0)
    rows = env.reset()
    before = rows.obs["state"].copy()
    action = np.eye(2, dtype=np.float32)
    later = env.step(action)
    action[:] = 7.0
    np.testing.assert_array_equal(rows.obs["state"], before)
    np.testing.assert_array_equal(later.prev_action, np.eye(2))


def test_reset_repeats_the_first_episodes_and_copies_differ():
    env = make("gym:CartPole-v1", num_envs=3, seed=1)
    first = env.reset()
    env.step(env.random_action(np.random.default_rng(0)))
    assert_same(env.reset(), first)
    state = first.obs["state"]
    assert len(np.unique(state, axis=0)) == 3
    np.testing.assert_array_equal(make("gym:CartPole-v1", num_envs=1, seed=1).reset().obs["state"], state[:1])
    assert not np.array_equal(make("gym:CartPole-v1", num_envs=3, seed=2).reset().obs["state"], state)


def test_a_dictionary_of_vectors_keeps_its_names(register):
    space = Dict({"joints": Box(-9, 9, (3,), np.float64), "ram": Box(0, 255, (2,), np.uint8)})
    played = {"joints": np.arange(3.0), "ram": np.array([7, 255], np.uint8)}
    env = make(register(Scripted, observation_space=space, observations=[played]), num_envs=2, seed=0)
    assert env.spaces.obs == (ObsSpec("joints", (3,)), ObsSpec("ram", (2,)))
    rows = env.reset()
    np.testing.assert_array_equal(rows.obs["joints"], [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(rows.obs["ram"], [[7, 255]] * 2)
    assert all(value.dtype == np.float32 for value in rows.obs.values())


def test_vectors_are_clipped_and_scaled_but_stored_as_chosen(register):
    space = Box(float32([-2.0, 0.1]), float32([2.0, 0.7]))
    scripted = Scripted(action_space=space)
    env = make(register(lambda: scripted), num_envs=1, seed=0)
    env.reset()
    table = {  # the agent's action -> the environment's
        (-1.0, -1.0): (-2.0, 0.1),
        (0.0, 0.0): (0.0, 0.4),
        (0.5, -0.5): (1.0, 0.25),
        (1.0, 1.0): (2.0, 0.7),
        (-3.0, 5.0): (-2.0, 0.7),
        (3e38, -3e38): (2.0, 0.1),
    }
    for action in table:
        rows = env.step(float32([action]))
        np.testing.assert_array_equal(rows.prev_action, float32([action]))
    np.testing.assert_allclose(scripted.actions, float32(list(table.values())), rtol=1e-6)
    assert all(space.contains(action) for action in scripted.actions)  # never past a bound, not even by rounding


def test_one_hot_actions_count_from_the_start_of_the_space(register):
    scripted = Scripted(action_space=Discrete(3, start=-1))
    env = make(register(lambda: scripted), num_envs=1, seed=0)
    assert env.spaces.actions == (ActionSpec("discrete", 3),)
    env.reset()
    for choice in range(3):
        env.step(np.eye(3, dtype=np.float32)[[choice]])
    assert scripted.actions == [-1, 0, 1]


def test_random_actions():
    generator = np.random.default_rng(0)
    one_hot = make("gym:Acrobot-v1", num_envs=3000, seed=0).random_action(generator)
    assert one_hot.shape == (3000, 3)
    assert one_hot.dtype == np.float32
    assert ((one_hot == 0) | (one_hot == 1)).all()
    np.testing.assert_array_equal(one_hot.sum(axis=1), 1)
    assert (np.abs(one_hot.sum(axis=0) - 1000) < 150).all()
    vector = make("gym:Pendulum-v1", num_envs=3000, seed=0).random_action(generator)
    assert vector.shape == (3000, 1)
    assert vector.dtype == np.float32
    quarters = np.histogram(vector, bins=[-1, -0.5, 0, 0.5, 1])[0]
    assert quarters.sum() == 3000
    assert (np.abs(quarters - 750) < 150).all()


@pytest.mark.parametrize("steps", [0, 10, 23], ids=["at the start", "in an episode", "between an end and its reset"])
@pytest.mark.parametrize("name", CLASSIC)
def test_resuming_is_exact(register, name, steps):
    """Over several episode ends, to check the random resets, too."""
    env_id = register(gymnasium.spec(name).entry_point, limit=23)
    generator = np.random.default_rng(0)
    env = make(env_id, num_envs=2, seed=3)
    rows = env.reset()
    for _ in range(steps):
        rows = env.step(env.random_action(generator))
    assert rows.is_last.any() == (steps == 23 and name != "CartPole-v1")  # which rarely reaches the limit
    state = env.state()
    assert state is not None

    used = make(env_id, num_envs=2, seed=99)
    used.reset()
    fresh = make(env_id, num_envs=2, seed=99)
    others = [fresh, used]
    for other in others:
        other.load(state)
    starts = 0
    for _ in range(80):
        action = env.random_action(generator)
        rows = env.step(action)
        starts += rows.is_first.sum()
        for other in others:
            assert_same(other.step(action), rows)
    assert starts >= 6


@pytest.mark.parametrize("entry_point", [Forgetful, Unpicklable])
def test_environments_that_cannot_be_saved_have_no_state(register, entry_point):
    env = make(register(entry_point), num_envs=1, seed=0)
    env.reset()
    assert env.state() is None


def test_a_state_of_another_environment_is_refused():
    env = make("gym:CartPole-v1", num_envs=2, seed=0)
    for env_id, num_envs in (("gym:CartPole-v1", 3), ("gym:Acrobot-v1", 2)):
        other = make(env_id, num_envs=num_envs, seed=0).state()
        assert other is not None
        with pytest.raises(EnvError, match=f"has {num_envs} copies of {env_id}, expected 2 of gym:CartPole-v1"):
            env.load(other)
    state = env.state()
    assert state is not None
    for damaged in (b"", b"nonsense", state[:-40]):
        with pytest.raises(EnvError, match="saved state of gym:CartPole-v1 cannot be read"):
            env.load(damaged)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300], ids=["nan", "infinite", "too large for float32"])
def test_observations_that_are_not_finite_are_errors(register, bad):
    space = Box(-np.inf, np.inf, (2,), np.float64)
    observations = [np.zeros(2), np.zeros(2), np.array([0.0, bad])]
    env = make(register(Scripted, observation_space=space, observations=observations), num_envs=2, seed=0)
    action = np.eye(2, dtype=np.float32)
    env.reset()
    env.step(action)
    with pytest.raises(
        EnvError, match=r"gym:Scripted-v0: the observation 'state' is not finite: .* \(copy 0, step 2\)"
    ):
        env.step(action)


def test_rewards_and_actions_that_are_not_finite_are_errors(register):
    env = make(register(Scripted, reward=float("nan")), num_envs=1, seed=0)
    env.reset()
    with pytest.raises(EnvError, match=r"gym:Scripted-v0: the reward is not finite: nan \(copy 0, step 1\)"):
        env.step(float32([[1, 0]]))
    with pytest.raises(EnvError, match=r"gym:Scripted-v0: the action is not finite: .* \(copy 0, step 2\)"):
        env.step(float32([[np.nan, 0]]))


def test_actions_of_another_shape_are_refused():
    env = make("gym:CartPole-v1", num_envs=2, seed=0)
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \[num_envs, A\] = \(2, 2\)"):
        env.step(np.zeros(2, np.float32))
