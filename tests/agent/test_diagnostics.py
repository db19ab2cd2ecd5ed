"""Diagnostics: against numbers worked out from the same parameters by other means."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.actor_critic import critic_value
from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.agent.diagnostics import (
    _cut,
    _heads_against_rows,
    _joined,
    _value_against_returns,
    diagnose,
    entropy_range,
    entropy_share,
    module_grad_norms,
)
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.train_step import train_step
from dreamerjax.agent.world_model import observe
from dreamerjax.types import ActionSpec, Batch, Spaces
from tests.agent.test_train_step import CONFIG, OBS, B, T, make_agent, random_batch
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

    value = critic_value(agent, state.params.critic, latent_features(states))[:-1]
    known = ~np.asarray(batch.is_last[:-1])
    assert found["value_mean"] == pytest.approx(float(np.asarray(value)[known].mean()), rel=1e-4)


def test_the_norms_of_the_modules_make_up_that_of_the_world_model():
    agent = make_agent("discrete")
    state, batch = trained_state(agent), random_batch("discrete", 3)
    _, metrics, _ = jit(lambda: train_step(agent, state, batch, mode="world_model"))()
    parts = {name: float(x) for name, x in metrics.items() if name.startswith("grad_norm/")}
    assert set(parts) == {
        f"grad_norm/{n}" for n in ("encoder", "decoder", "reward", "cont", "gru", "prior", "posterior")
    }
    assert math.hypot(*parts.values()) == pytest.approx(float(metrics["world_model_grad_norm"]), rel=1e-4)


def test_no_gradient_reaches_a_prior_below_the_free_nats():
    agent = make_agent("discrete")
    clip, through = (
        make_agent(
            "discrete",
            dataclasses.replace(
                agent.config,
                world_model=dataclasses.replace(agent.config.world_model, free_nats=100.0, free_nats_gradient=gradient),
            ),
        )
        for gradient in ("clip", "straight_through")
    )
    state, batch = trained_state(agent), random_batch("discrete", 4)
    norms = {}
    for name, other in (("clip", clip), ("through", through)):
        _, metrics, _ = jit(lambda other=other: train_step(other, state, batch, mode="world_model"))()
        norms[name] = float(metrics["grad_norm/prior"])
        assert metrics["free_nats_share"] == 1
    assert norms["clip"] == 0
    assert norms["through"] > 1e-3


def test_module_grad_norms_by_hand():
    tree = {
        "params": {
            "encoder": {"w": jnp.array([3.0])},
            "rssm": {"prior_mlp": jnp.array([3.0]), "prior_out": jnp.array([4.0])},
        }
    }
    found = module_grad_norms(tree)
    assert {name: float(x) for name, x in found.items()} == {"grad_norm/encoder": 3, "grad_norm/prior": 5}


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_entropy_lies_in_its_range(kind):
    agent = make_agent(kind)
    low, high = entropy_range(agent)
    outputs = agent.spaces.actions[0].outputs
    certain = jnp.full(outputs, -1e3).at[0].set(1e3)
    if kind == "discrete":
        assert float(action_distribution(agent, jnp.zeros(outputs)).entropy()) == pytest.approx(high, rel=1e-5)
        assert float(action_distribution(agent, certain).entropy()) == pytest.approx(low, abs=1e-5)
    else:
        assert float(action_distribution(agent, jnp.full(outputs, 1e3)).entropy()) == pytest.approx(high, rel=1e-5)
        assert float(action_distribution(agent, jnp.full(outputs, -1e3)).entropy()) == pytest.approx(low, rel=1e-5)


def choices(*counts: int) -> tuple[ActionSpec, ...]:
    return tuple(ActionSpec("discrete", count) for count in counts)


@pytest.mark.parametrize(
    ("parts", "unimix"),
    [(choices(1), 0.0), (choices(1, 1), 0.0), (choices(1), 0.01), (choices(3), 1.0), (choices(1, 256, 256), 1.0)],
)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3])
def test_a_policy_that_has_nothing_to_choose_has_all_the_entropy_that_it_could_have(parts, unimix, size):
    agent = agent_with(parts, unimix)
    outputs = size * jnp.linspace(-1, 1, sum(part.outputs for part in parts))
    assert entropy_share(agent, action_distribution(agent, outputs[None]).entropy()).tolist() == [1.0]


@pytest.mark.parametrize("unimix", [0.0, 0.01])
@pytest.mark.parametrize("rest", [choices(3), (ActionSpec("continuous", 2),)], ids=["a choice", "a vector"])
def test_a_part_with_one_choice_changes_no_share(rest, unimix):
    outputs = jnp.linspace(-1, 2, sum(part.outputs for part in rest))
    alone, beside = agent_with(rest, unimix), agent_with((*choices(1), *rest), unimix)
    share = entropy_share(alone, action_distribution(alone, outputs).entropy())
    with_one = entropy_share(beside, action_distribution(beside, jnp.concatenate([jnp.ones(1), outputs])).entropy())
    assert 0.1 < share < 0.99
    assert with_one == pytest.approx(float(share), abs=1e-5)
