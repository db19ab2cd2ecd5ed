"""Diagnostics: against numbers worked out from the same parameters by other means."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.agent.diagnostics import (
    _cut,
    _heads_against_rows,
    _joined,
    _value_against_returns,
    diagnose,
)
from dreamerjax.agent.predictions import predict_value
from dreamerjax.agent.world_model import observe
from dreamerjax.types import ActionSpec, Batch, Spaces
from tests.agent.train_step_setup import CONFIG, OBS, B, T, make_agent, random_batch
from tests.tiny import random_like


@functools.cache
def trained_state(agent):
    state = jit(functools.partial(init_train_state, agent))(jax.random.PRNGKey(0))
    return dataclasses.replace(state, params=random_like(state.params, scale=0.3, small_returns=True))


@functools.cache
def observe_jit(agent):
    return jit(functools.partial(observe, agent))


def agent_with(parts: tuple[ActionSpec, ...], unimix: float) -> Agent:
    """The agent of these actions."""
    config = dataclasses.replace(CONFIG, actor=dataclasses.replace(CONFIG.actor, unimix=unimix))
    return build_agent(config, Spaces(OBS, parts))


def rows(length: int, num_envs: int, *, reward, last=(), terminal=()) -> Batch:
    is_last, is_terminal = np.zeros((length, num_envs), bool), np.zeros((length, num_envs), bool)
    for t, copy in last:
        is_last[t, copy] = True
    for t, copy in terminal:
        is_terminal[t, copy] = True
    return Batch(
        obs={},
        prev_action=jnp.zeros((length, num_envs, 1)),
        reward=jnp.asarray(reward, jnp.float32).reshape(length, num_envs),
        is_first=jnp.zeros((length, num_envs), bool),
        is_last=jnp.asarray(is_last),
        is_terminal=jnp.asarray(is_terminal),
    )


def test_the_value_of_a_critic_that_knows_has_no_bias():
    """Rewards of 1, the end after row 3: the returns are 1 + g + g^2, 1 + g, 1; then another episode, cut short."""
    g = 0.9
    value = jnp.array([1 + g + g * g, 1 + g, 1.0, 77.0, 1 + g * 5.0, 5.0])[:, None]
    batch = rows(6, 1, reward=np.ones(6), last=[(3, 0), (5, 0)], terminal=[(3, 0)])
    found = _value_against_returns(value, batch, jnp.float32(g))
    assert found["value_bias"] == pytest.approx(0, abs=1e-5)
    assert found["value_correlation"] == pytest.approx(1, abs=1e-5)
    off = _value_against_returns(2 * value, batch, jnp.float32(g))  # the bootstrap doubles, too
    returns = np.array([1 + g + g * g, 1 + g, 1.0, 1 + g * 10.0])
    assert off["value_return"] == pytest.approx(returns.mean(), rel=1e-5)
    assert off["value_bias"] == pytest.approx(
        float(2 * value[jnp.array([0, 1, 2, 4])].mean()) - returns.mean(), rel=1e-4
    )


def test_rows_are_cut_into_windows_in_the_order_of_time():
    x = jnp.arange(12 * 2).reshape(12, 2)  # step * 2 + copy
    batch = dataclasses.replace(rows(12, 2, reward=x), prev_action=x[..., None])
    windows = _cut(batch, 4)
    assert windows.reward.shape == (4, 6)
    assert windows.reward[:, 0].tolist() == [0, 2, 4, 6]
    assert windows.reward[:, 1].tolist() == [1, 3, 5, 7]
    assert windows.reward[:, 2].tolist() == [8, 10, 12, 14]
    assert (_joined(windows.reward, (12, 2)) == x).all()


def test_a_reward_head_that_is_a_step_late_is_told_by_the_rows_before(monkeypatch):
    agent = make_agent("discrete")
    state, batch = trained_state(agent), random_batch("discrete", 1)
    states = observe_jit(agent)(state.params.world_model, batch, jax.random.PRNGKey(0)).states
    late = jnp.concatenate([batch.reward[:1], batch.reward[:-1]])
    monkeypatch.setattr(
        "dreamerjax.agent.diagnostics._predictions", lambda agent, state, states: (late, jnp.full((T, B), 0.5))
    )
    found = _heads_against_rows(agent, state, states, batch)
    assert found["reward_correlation_previous"] == pytest.approx(1, abs=1e-5)
    expected = np.corrcoef(np.ravel(late[1:-1]), np.ravel(batch.reward[1:-1]))[0, 1]
    assert found["reward_correlation"] == pytest.approx(expected, abs=1e-5)
    assert found["reward_correlation"] < 0.9
    assert found["reward_correlation_next"] < 0.9
    assert found["reward_error"] == pytest.approx(float(jnp.abs(late - batch.reward).mean()), rel=1e-5)
    assert found["cont_predicted"] == 0.5
    assert found["cont_real"] == pytest.approx(1 - batch.is_terminal.mean())


def test_diagnose_is_finite_and_names_the_horizons():
    agent = make_agent("continuous")
    state, batch = trained_state(agent), random_batch("continuous", 1)
    newest = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)  # [2T, B], two windows of T of each copy
    run = jit(lambda key: diagnose(agent, state, newest, batch, key, sequence_length=T))
    found = {name: float(x) for name, x in run(jax.random.PRNGKey(3)).items()}
    assert all(map(math.isfinite, found.values()))
    assert {"dream_kl_h1", "dream_survival_h3", "world_model_loss_newest", "value_bias"} <= set(found)
    assert found["dream_survival_h1"] >= found["dream_survival_h3"] > 0
    assert found["kl_newest"] >= 0
    assert 0 <= found["prior_agreement"] <= 1


def test_values_of_the_newest_rows_are_the_critics():
    agent = make_agent("discrete")
    state, batch = trained_state(agent), random_batch("discrete", 2)
    key = jax.random.PRNGKey(5)
    found = jit(functools.partial(diagnose, agent, sequence_length=T))(state, batch, batch, key)
    states = observe_jit(agent)(state.params.world_model, batch, jax.random.split(key, 4)[0]).states
    from dreamerjax.nets.rssm import latent_features

    value = predict_value(agent, state.params.critic, latent_features(states))[:-1]
    known = ~np.asarray(batch.is_last[:-1])
    assert found["value_mean"] == pytest.approx(float(np.asarray(value)[known].mean()), rel=1e-4)
