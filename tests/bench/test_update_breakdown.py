"""The parts that are timed are those of the update: put together, they move the parameters as it does."""

import dataclasses
import functools

import chex
import jax
import pytest
from jax import jit

from dreamerjax.agent.actor_critic import imagine
from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.agent.train_step import train_step
from dreamerjax.agent.world_model import observe
from dreamerjax.bench import table as bench_table
from dreamerjax.bench import update_breakdown
from dreamerjax.bench.synthetic import filled_replay
from dreamerjax.config import AgentConfig, Config, OptimizerConfig, ReplayConfig, ReturnsConfig, TrainConfig
from dreamerjax.nets.rssm import merge_time
from dreamerjax.types import ActionSpec, ObsSpec, Params, Spaces
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
        model, discount = state.params.world_model, state.knobs.discount
        posterior = observe(agent, model, batch, observe_key)
        dream = imagine(agent, state.params, state.slow_critic, merge_time(posterior.states), dream_key)
        (actor, critic), features_grad, scale = update_breakdown.actor_critic_grads(
            agent, state, dream, posterior, batch
        )
        model_grad = update_breakdown.world_model_grad(agent, model, batch, observe_key, discount, features_grad)
        grads = Params(world_model=model_grad, actor=actor, critic=critic)
        return dataclasses.replace(update_breakdown.optimizer_step(agent, state, grads), return_scale=scale)

    actual = together(state, batch)
    expected, *_ = jit(functools.partial(train_step, agent))(state, batch)
    chex.assert_trees_all_close(actual.replace(key=expected.key), expected, rtol=1e-4, atol=1e-6)


def test_the_recurrence_has_a_gradient_for_each_of_its_parameters(agent, replay):
    params = random_like(
        jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0)).params, scale=0.5
    ).world_model
    batch, key = jax.tree.map(lambda x: x[0], replay.sample(3, 5, 1)), jax.random.PRNGKey(1)
    gradient, _ = jit(functools.partial(update_breakdown.observe_grad, agent))(params, batch, key)
    moved = {name for name, part in gradient["params"].items() if any(abs(x).sum() > 0 for x in jax.tree.leaves(part))}
    assert moved == {"encoder", "rssm"}


def test_every_part_has_words():
    assert [name for name, _ in bench_table.OF_UPDATE] == list(update_breakdown.OF_UPDATE)
    assert [name for name, _ in bench_table.BETWEEN_UPDATES] == list(update_breakdown.BETWEEN_UPDATES)
