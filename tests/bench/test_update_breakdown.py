"""The parts that are timed are those of the update: put together, they move the parameters as it does."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import jit

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.agent.train_step import apply_gradients, train_step, world_model_forward, world_model_gradients
from dreamerjax.bench import table as bench_table
from dreamerjax.bench import update_breakdown
from dreamerjax.bench.synthetic import filled_replay
from dreamerjax.config import AgentConfig, Config, OptimizerConfig, ReplayConfig, ReturnsConfig, TrainConfig
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.tiny import MODEL, random_like

SPACES = Spaces((ObsSpec("state", (4,)),), (ActionSpec("discrete", 3),))
SMALL = dataclasses.replace(MODEL, reward_layers=0, cont_layers=0, prior_layers=0, posterior_layers=0)
CONFIG = Config(
    agent=AgentConfig(
        model=SMALL,
        returns=ReturnsConfig(imagination_horizon=3),
        optimizer=OptimizerConfig(warmup_updates=0, epsilon=1e-6),
    ),
    train=TrainConfig(batch_size=3, sequence_length=5, updates_per_dispatch=2),
)


@pytest.fixture(scope="module")
def agent():
    return build_agent(CONFIG.agent, SPACES)


@pytest.fixture(scope="module")
def replay():
    return filled_replay(ReplayConfig(capacity=100), SPACES, num_envs=1, seed=0)


def test_together_they_make_the_update(agent, replay):
    fresh = jit(functools.partial(init_train_state, agent))(jax.random.PRNGKey(0))
    params, slow_critic = random_like((fresh.params, fresh.slow_critic), scale=0.5, small_returns=True)
    state = dataclasses.replace(fresh, params=params, slow_critic=slow_critic)
    batch = jax.tree.map(lambda x: x[0], replay.sample(3, 5, 1))

    @jit
    def together(state, batch):
        observe_key, dream_key, _ = jax.random.split(state.key, 3)
        forward = world_model_forward(agent, state, batch, observe_key)
        dream = update_breakdown.imagined(agent, state, forward.latents, dream_key)
        on_dreams, on_rows = update_breakdown.behaviour_gradients(agent, state, dream, forward.features, batch)
        grads = {
            "world_model": world_model_gradients(forward, on_rows.features),
            "actor": on_dreams.grads.actor,
            "critic": jax.tree.map(jnp.add, on_dreams.grads.critic, on_rows.critic),
        }
        state = apply_gradients(agent, state, grads)
        return dataclasses.replace(state, step=state.step + 1, return_scale=on_dreams.return_scale)

    actual = together(state, batch)
    expected, *_ = jit(functools.partial(train_step, agent))(state, batch)
    chex.assert_trees_all_close(actual.replace(key=expected.key), expected, rtol=1e-4, atol=1e-6)


def test_every_stage_is_timed(agent, replay):
    parts = update_breakdown.Parts(agent, CONFIG, replay, seed=0)
    before = jax.device_get(parts._state.params)
    try:
        milliseconds = parts.round()
    finally:
        parts.close()
    assert list(milliseconds) == [*update_breakdown.OF_UPDATE, *update_breakdown.BETWEEN_UPDATES]
    assert min(milliseconds.values()) > 0
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), before, jax.device_get(parts._state.params))
    assert all(any(jax.tree.leaves(network)) for network in (moved.world_model, moved.critic))


def test_every_part_has_words():
    assert [name for name, _ in bench_table.OF_UPDATE] == list(update_breakdown.OF_UPDATE)
    assert [name for name, _ in bench_table.BETWEEN_UPDATES] == list(update_breakdown.BETWEEN_UPDATES)
