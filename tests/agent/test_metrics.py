"""Metrics of an update, against numbers worked out by other means."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax import jit

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.agent.metrics import (
    entropy_range,
    entropy_share,
    module_grad_norms,
)
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.train_step import train_step
from dreamerjax.agent.world_model import observe
from dreamerjax.types import ActionSpec, Spaces
from tests.agent.train_step_setup import CONFIG, OBS, make_agent, random_batch
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
