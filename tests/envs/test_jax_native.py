"""Environments that are JAX functions: the rows of each copy, new episodes, events, and exact resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError
from dreamerjax.envs.jax_native import Arrival, JaxTask, JaxVectorEnv
from dreamerjax.types import ActionSpec, ObsSpec

LIMIT = 7
STAY, GO = np.eye(2, dtype=np.float32)


def reset(key):
    """A walk from a random position; [position, steps]."""
    state = {"place": jax.random.uniform(key), "time": jnp.zeros((), jnp.int32)}
    return state, see(state)


def step(key, state, action):
    """Each `GO` adds 1; the task ends above 4, the time limit is 7 steps."""
    del key
    place = state["place"] + action
    state = {"place": place, "time": state["time"] + 1}
    terminated = place > 4
    metrics = {"place": place, "time": state["time"]}
    return state, Arrival(see(state), 10.0 * action, terminated, ~terminated & (state["time"] >= LIMIT), metrics)


def see(state):
    return jnp.stack([state["place"], state["time"].astype(jnp.float32)])


TASK = JaxTask(Box(-np.inf, np.inf, (2,)), Discrete(2), reset, step)


def make(task: JaxTask = TASK, *, num_envs: int = 2, seed: int = 0, **options) -> JaxVectorEnv:
    return JaxVectorEnv(task, EnvConfig(id="test:walk", **options), num_envs=num_envs, seed=seed)


def test_spaces_and_first_rows():
    env = make(num_envs=3)
    assert env.spaces == ((ObsSpec("state", (2,)),), (ActionSpec("discrete", 2),))
    rows = env.reset()
    assert rows.is_first.all()
    assert not (rows.is_last | rows.is_terminal | rows.prev_action.any(1) | (rows.reward != 0)).any()
    assert len(np.unique(rows.obs["state"][:, 0])) == 3
    assert (rows.obs["state"].dtype, rows.prev_action.dtype, rows.reward.dtype) == (np.float32,) * 3
    np.testing.assert_array_equal(env.reset().obs["state"], rows.obs["state"])
    np.testing.assert_array_equal(make(num_envs=1).reset().obs["state"], rows.obs["state"][:1])
    assert not np.array_equal(env.reset(seed=1).obs["state"], rows.obs["state"])


def test_one_copy_terminates_and_the_other_reaches_its_time_limit():
    env = make()
    start = env.reset().obs["state"][:, 0]
    actions = np.stack([GO, STAY])
    for time in range(1, LIMIT + 3):
        rows = env.step(actions)
        turn = time % 5  # the first copy ends with its fourth step, and the next one starts an episode
        assert rows.is_first.tolist() == [turn == 0, time == LIMIT + 1]
        assert rows.is_last.tolist() == [turn == 4, time == LIMIT]
        assert rows.is_terminal.tolist() == [turn == 4, False]
        assert rows.reward.tolist() == [10 * (turn > 0), 0]
        np.testing.assert_array_equal(rows.prev_action, np.where(rows.is_first[:, None], 0, actions))
        np.testing.assert_array_equal(rows.obs["state"][:, 1], [turn, time if time <= LIMIT else time - LIMIT - 1])
        if time < 5:
            np.testing.assert_allclose(rows.obs["state"][:, 0], [start[0] + time, start[1]], rtol=1e-6)
        events = env.take_events()
        assert [event.copy for event in events] == np.flatnonzero(rows.is_last).tolist()
        for event in events:
            assert event.metrics == {
                "place": rows.obs["state"][event.copy, 0],
                "time": rows.obs["state"][event.copy, 1],
            }
    assert env.take_events() == []


def test_episodes_of_a_copy_differ():
    env = make(num_envs=1)
    starts = {float(env.reset().obs["state"][0, 0])}
    for _ in range(40):
        rows = env.step(GO[None])
        if rows.is_first[0]:
            starts.add(float(rows.obs["state"][0, 0]))
    assert len(starts) == 9


def test_repeated_actions_are_one_step_and_stop_at_the_end_of_an_episode():
    env = make(num_envs=1, action_repeat=3)
    start = env.reset().obs["state"][0, 0]
    rows = env.step(GO[None])
    np.testing.assert_allclose(rows.obs["state"], [[start + 3, 3]], rtol=1e-6)
    assert rows.reward.tolist() == [30]
    rows = env.step(GO[None])
    np.testing.assert_allclose(rows.obs["state"], [[start + 4, 4]], rtol=1e-6)
    assert rows.reward.tolist() == [10]
    assert rows.is_terminal.all()


@pytest.mark.parametrize("steps", [0, 3, 4])
def test_resuming_is_exact(steps):
    env = make()
    env.reset()
    generator = np.random.default_rng(0)
    for _ in range(steps):
        env.step(np.stack([GO, STAY]))
    fresh = make(seed=9)
    state = env.state()
    assert state is not None
    fresh.load(state)
    for _ in range(30):
        action = env.random_action(generator)
        jax.tree.map(np.testing.assert_array_equal, env.step(action), fresh.step(action))


def test_a_state_of_another_environment_is_refused():
    env = make()
    env.reset()
    state = env.state()
    assert state is not None
    with pytest.raises(EnvError, match="has 2 copies of test:walk, expected 3 of test:walk"):
        make(num_envs=3).load(state)
    with pytest.raises(EnvError, match="saved state of test:walk cannot be read"):
        env.load(state[:-20])
    other = TASK._replace(reset=lambda key: ({"place": jnp.zeros(3)}, jnp.zeros(2)))
    with pytest.raises(EnvError, match="saved state is from another version of test:walk"):
        make(other).load(state)


def spoiled(bad_obs: float, bad_reward: float) -> JaxTask:
    """The walk with an invalid value at its third step, in the first copy only, because only that one moves."""

    def spoilt_step(key, state, action):
        state, arrival = step(key, state, action)
        third = (state["time"] == 3) & (action == 1)
        obs = jnp.where(third, bad_obs, arrival.obs)
        return state, arrival._replace(obs=obs, reward=jnp.where(third, bad_reward, arrival.reward))

    return TASK._replace(step=spoilt_step)


BAD = {
    "observation": (np.nan, 0.0, "the observation 'state' is not finite"),
    "reward": (0.0, np.inf, "the reward is not finite"),
}


@pytest.mark.parametrize("what", BAD)
def test_values_that_are_not_finite_stop_the_run(what):
    obs, reward, expected = BAD[what]
    env = make(spoiled(obs, reward))
    env.reset()
    for _ in range(2):
        env.step(np.stack([GO, STAY]))
    with pytest.raises(EnvError, match=rf"test:walk: {expected}.*\(copy 0, step 3\)"):
        env.step(np.stack([GO, STAY]))


@pytest.mark.parametrize("what", BAD)
def test_values_that_are_not_finite_can_start_a_new_episode(what):
    obs, reward, expected = BAD[what]
    env = make(spoiled(obs, reward), on_bad_observation="skip-episode")
    env.reset()
    for time in range(1, 5):
        rows = env.step(np.stack([GO, STAY]))
        assert rows.is_first.tolist() == [time == 3, False]
        np.testing.assert_array_equal(rows.obs["state"][:, 1], [time % 3, time])
        events = env.take_events()
        assert [event.copy for event in events] == ([0] if time == 3 else [])
        assert all(expected in event.interrupted for event in events)
        if time == 3:
            assert (rows.reward[0], rows.prev_action[0].any()) == (0, False)


def test_an_environment_that_never_starts_well_is_an_error():
    env = make(
        TASK._replace(reset=lambda key: (reset(key)[0], jnp.full(2, jnp.nan))), on_bad_observation="skip-episode"
    )
    with pytest.raises(EnvError, match=r"the observation 'state' is not finite.*\(copy 0, step 0\)"):
        env.reset()


def test_bad_actions_and_workers_are_refused():
    env = make()
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \[num_envs, A\] = \(2, 2\)"):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(EnvError, match=r"the action is not finite: .* \(copy 1, step 1\)"):
        env.step(np.array([[0, 1], [np.nan, 0]], np.float32))
    with pytest.raises(EnvError, match=r"env\.workers is 2, expected 0"):
        make(workers=2)


def test_vectors_are_scaled_to_the_bounds_of_the_task():
    given = TASK._replace(
        action_space=Box(np.float32([-2]), np.float32([6])),
        step=lambda key, state, action: step(key, state, action[0]),
    )
    env = make(given)
    start = env.reset().obs["state"][:, 0]
    rows = env.step(np.float32([[0.0], [-1.0]]))
    np.testing.assert_allclose(rows.obs["state"][:, 0] - start, [2, -2], rtol=1e-6)


def test_render_returns_the_first_copy():
    assert make().render() is None
    env = make(TASK._replace(draw=lambda state: jnp.full((4, 4, 3), state["time"], jnp.uint8)))
    assert env.render() is None
    env.reset()
    env.step(np.stack([GO, STAY]))
    picture = env.render()
    assert picture is not None
    assert (picture.dtype, picture.shape, picture.max()) == (np.uint8, (4, 4, 3), 1)


def test_a_task_without_metrics_has_no_events():
    def silent_step(key, state, action):
        state, arrival = step(key, state, action)
        return state, arrival._replace(metrics={})

    env = make(TASK._replace(step=silent_step), num_envs=1)
    env.reset()
    for _ in range(4):
        rows = env.step(GO[None])
    assert rows.is_last.all()
    assert env.take_events() == []
