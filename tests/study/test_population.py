"""A population equals single runs of the same settings, on the same rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax.agent.agent import build_agent, init_knobs, init_train_state
from dreamerjax.agent.policy import initial_policy_state, jit_policy
from dreamerjax.agent.train_step import train_steps
from dreamerjax.study.population import (
    compile_population,
    init_population,
    initial_population_policy,
    member_of,
    population_policy,
)
from tests.agent.train_step_setup import make_agent, random_batch
from tests.tiny import random_like

U = 2
VARIED = ((1e-3, 1e-3, 333.0, 0.95), (1e-5, 0.3, 333.0, 0.95), (1e-3, 0.3, 10.0, 0.5))


@pytest.fixture(scope="module")
def agent():
    return make_agent("discrete")


@pytest.fixture(scope="module")
def members(agent):
    """Members with different actor learning rates, entropy scales, discount horizons and lambdas."""
    config = agent.config
    return [
        dataclasses.replace(
            config,
            actor=dataclasses.replace(config.actor, learning_rate=rate, entropy_scale=entropy),
            returns=dataclasses.replace(config.returns, discount_horizon=horizon, return_lambda=lambda_),
        )
        for rate, entropy, horizon, lambda_ in VARIED
    ]


@pytest.fixture(scope="module")
def source(agent):
    state = init_train_state(agent, jax.random.PRNGKey(9))
    return dataclasses.replace(state, params=random_like(state.params, scale=0.3, small_returns=True))


def batches(seed: int):
    return jax.tree.map(lambda *x: jnp.stack(x), *(random_batch("discrete", seed + n) for n in range(U)))


def test_members_equal_single_runs(agent, members, source, monkeypatch) -> None:
    """Starts from perturbed parameters: with a critic of zeros, only rounding errors would be compared."""

    def learned(agent, key):
        fresh = init_train_state(agent, key)
        return dataclasses.replace(fresh, params=source.params, slow_critic=source.params.critic)

    monkeypatch.setattr("dreamerjax.study.population.init_train_state", learned)
    key, rows = jax.random.PRNGKey(4), [batches(0), batches(10)]
    state, update = init_population(agent, source, members, key), compile_population(agent)
    for each in rows:
        state, metrics = update(state, each)
    assert metrics["actor_entropy"].shape == (len(members),)
    finals = []
    for number, config in enumerate(members):
        alone = build_agent(config, agent.spaces)
        knobs = dataclasses.replace(init_knobs(config), cont_discount=source.knobs.cont_discount)
        one = dataclasses.replace(learned(alone, key), knobs=knobs)
        step = jax.jit(lambda state, batch, alone=alone: train_steps(alone, state, batch, mode="actor_critic"))
        for each in rows:
            one, single, _ = step(one, each)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-3, atol=1e-5), member_of(state, number), one)
        for name in ("actor_loss", "return_mean", "critic_loss", "return_scale"):
            assert float(metrics[name][number]) == pytest.approx(float(single[name]), rel=2e-3, abs=1e-5), name
        finals.append(one)
    # Each knob has effect: no two members end with the same parameters.
    actors = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(one.params.actor)]) for one in finals]
    assert min(np.abs(x - y).max() for n, x in enumerate(actors) for y in actors[:n]) > 1e-5


def test_the_world_model_does_not_change_and_is_not_donated(agent, members, source) -> None:
    state = init_population(agent, source, members, jax.random.PRNGKey(0))
    before = jax.tree.map(np.asarray, source.params.world_model)
    state, _ = compile_population(agent)(state, batches(3))
    jax.tree.map(np.testing.assert_array_equal, state.params.world_model, before)
    jax.tree.map(np.testing.assert_array_equal, source.params.world_model, before)  # not donated
    assert int(state.step) == U


def test_a_frozen_continue_head_keeps_its_discount(agent, source) -> None:
    """At half the discount horizon, imagined continues are the head's output times new discount / old discount."""

    def dreamed(horizon: float) -> float:
        config = dataclasses.replace(
            agent.config, returns=dataclasses.replace(agent.config.returns, discount_horizon=horizon)
        )
        state = init_population(agent, source, [config], jax.random.PRNGKey(2))
        return float(compile_population(agent)(state, batches(1))[1]["dream_cont_mean"][0])

    trained = agent.config.returns.discount_horizon
    ratio = (1 - 1 / 5) / (1 - 1 / trained)
    assert dreamed(5.0) == pytest.approx(ratio * dreamed(trained), rel=1e-3)


def test_each_member_acts_with_its_own_policy(agent, members, source) -> None:
    num_envs, count = 3, len(members)
    state = init_population(agent, source, members, jax.random.PRNGKey(0))
    # Perturbed, because new actors are the same.
    actor = random_like(state.params.actor, scale=0.5, seed=3)
    params = dataclasses.replace(state.params, actor=actor)
    state = dataclasses.replace(state, params=params)
    rows = random_batch("discrete", 6)
    obs = {name: jnp.concatenate([x[0]] * num_envs * count)[: num_envs * count] for name, x in rows.obs.items()}
    is_first, key = jnp.arange(num_envs * count) % 2 == 0, jax.random.PRNGKey(8)
    before = initial_population_policy(agent, count, num_envs)
    _, action, next_key = population_policy(agent, count)(params, before, obs, is_first, key)
    assert action.shape == (num_envs * count, agent.spaces.action_size)
    for number in range(count):
        own = slice(number * num_envs, (number + 1) * num_envs)
        _, expected, expected_key = jit_policy(agent, greedy=True)(
            member_of(state, number).params,
            initial_policy_state(agent, num_envs),
            {name: x[own] for name, x in obs.items()},
            is_first[own],
            key,
        )
        np.testing.assert_array_equal(action[own], expected)
        np.testing.assert_array_equal(next_key, expected_key)
    assert len({action[n * num_envs].argmax().item() for n in range(count)}) > 1
