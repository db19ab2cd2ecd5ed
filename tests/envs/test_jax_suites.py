"""Suites stepped in batch: Gymnax, Brax and Craftax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.envs.suites import THIRD_PARTY, make, needs, only

pytestmark = THIRD_PARTY


@needs("gymnax")
def test_gymnax_rows_are_those_of_the_environment_stepped_by_hand():
    import gymnax

    env: Any = make("gymnax:CartPole-v1")
    by_hand, params = gymnax.make("CartPole-v1")
    rows, generator, ends = env.reset(), np.random.default_rng(0), 0
    for _ in range(60):
        before, action = env._at.state, env.random_action(generator)
        ended = rows.is_last
        rows = env.step(action)
        for copy in np.flatnonzero(~ended):
            state = jax.tree.map(lambda leaf, copy=copy: leaf[copy], before)
            obs, _, reward, done, _ = by_hand.step_env(jax.random.PRNGKey(0), state, action[copy].argmax(), params)
            np.testing.assert_allclose(rows.obs["state"][copy], obs, rtol=1e-5, atol=1e-6)
            assert (rows.reward[copy], rows.is_last[copy], rows.is_terminal[copy]) == (reward, done, done)
        ends += rows.is_last.sum()
    assert ends >= 3


@needs("gymnax")
def test_gymnax_time_limits_are_distinguished_from_ends():
    env: Any = make("gymnax:CartPole-v1", num_envs=3)
    env.reset()
    # The first two reach their limit in the next step, in which the second one also falls.
    state = env._at.state.replace(
        time=jnp.array([499, 499, 0]),
        **{name: jnp.zeros(3) for name in ("x", "x_dot", "theta_dot")},
        theta=jnp.array([0.0, 1.0, 1.0]),
    )
    env._at = env._at._replace(state=state)
    rows = env.step(only(env, 0))
    assert rows.is_last.tolist() == [True, True, True]
    assert rows.is_terminal.tolist() == [False, True, True]


@needs("brax")
def test_brax_rows_are_those_of_the_environment_stepped_by_hand(monkeypatch):
    """With a limit of 6 steps; some copies fall before."""
    monkeypatch.setattr("dreamerjax.envs.brax_env.LIMIT", 6)
    from dreamerjax.envs.brax_env import envs

    env: Any = make("brax:inverted_pendulum", num_envs=3)
    with pytest.warns(UserWarning, match="not actively being maintained"):
        by_hand = envs.get_environment("inverted_pendulum")
    step = jax.jit(jax.vmap(by_hand.step))
    rows, times = env.reset(), np.zeros(3, int)
    ends = np.zeros(2, int)
    for turn in range(40):
        action = np.float32([[0.0], [1.0], [-1.0 if turn % 3 else 1.0]])
        ended, before = rows.is_last, env._at.state
        rows, now = env.step(action), step(before, jnp.asarray(action))
        times = np.where(ended, 0, times + 1)
        on = ~ended
        fallen = np.asarray(now.done > 0)
        np.testing.assert_allclose(rows.obs["state"][on], np.asarray(now.obs)[on], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rows.reward[on], np.asarray(now.reward)[on], rtol=1e-5)
        np.testing.assert_array_equal(rows.is_terminal[on], fallen[on])
        np.testing.assert_array_equal(rows.is_last[on], (fallen | (times == 6))[on])
        ends += [rows.is_terminal.sum(), (rows.is_last & ~rows.is_terminal).sum()]
    assert (ends > 0).all()


@needs("brax")
def test_brax_reports_the_terms_of_the_reward():
    from dreamerjax.envs.brax_env import _task

    task, key = _task("reacher"), jax.random.PRNGKey(0)
    state, _ = jax.eval_shape(task.reset, key)
    _, arrival = jax.eval_shape(task.step, key, state, jnp.zeros(2))
    assert set(arrival.metrics) == {"reward_dist", "reward_ctrl"}


@needs("craftax")
def test_craftax_distinguishes_time_limits_from_deaths_and_reports_achievements():
    env: Any = make("craftax:Craftax-Classic-Symbolic-v1", num_envs=3)
    env.reset()
    state = env._at.state.replace(
        timestep=jnp.array([9999, 9999, 5]),
        player_health=jnp.array([9, 0, 0]),
        achievements=env._at.state.achievements.at[0, 0].set(True),
    )
    env._at = env._at._replace(state=state)
    rows = env.step(only(env, 0))
    assert rows.is_last.all()
    assert rows.is_terminal.tolist() == [False, True, True]
    events = env.take_events()
    assert [event.copy for event in events] == [0, 1, 2]
    assert [sum(event.metrics.values()) for event in events] == [1, 0, 0]
    assert events[0].metrics["achievement_collect_wood"] == 1
    assert env.step(only(env, 0)).is_first.all()
