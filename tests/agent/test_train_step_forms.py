"""One update against a plain composition of the losses, and against itself in its other forms."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import Agent, init_train_state
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.predictions import predict_value
from dreamerjax.agent.train_step import train_steps
from dreamerjax.agent.world_model import observe
from dreamerjax.bench.flops import matmul_flop
from dreamerjax.config import AgentConfig
from dreamerjax.math.distributions import balanced_kl
from dreamerjax.math.transforms import symlog, two_hot_cross_entropy
from dreamerjax.nets.networks import WorldModel
from dreamerjax.nets.rssm import latent_features, merge_time
from dreamerjax.types import Batch, Params, ReturnScale, TrainState
from tests.agent.train_step_setup import (
    CONFIG,
    PARTS,
    B,
    H,
    T,
    U,
    make_agent,
    make_knobs,
    random_batch,
    run,
    same,
    update,
)

# -- The update against a plain composition


def plain_total_loss(agent: Agent, params: Params, state: TrainState, batch: Batch, entropy_scale: float):
    """The sum of all losses, all N starts and H steps at once, written from the paper; and the new return scale."""
    stop, knobs = jax.lax.stop_gradient, state.knobs
    observe_key, dream_key, _ = jax.random.split(state.key, 3)
    posterior = observe(agent, params.world_model, batch, observe_key)
    features = latent_features(posterior.states)

    def predict(method):
        return agent.networks.world_model.apply(params.world_model, features, method=method)

    decoded = predict(WorldModel.decode)
    reconstruction = sum(jnp.square(decoded[name] - symlog(x)).sum(-1) for name, x in batch.obs.items())
    reward = two_hot_cross_entropy(predict(WorldModel.reward), batch.reward, agent.bins)
    goes_on, target = jax.nn.sigmoid(predict(WorldModel.cont)), (1 - batch.is_terminal) * (1 - 1 / 333)
    cont = -(target * jnp.log(goes_on) + (1 - target) * jnp.log(1 - goes_on))
    dynamics, representation = balanced_kl(
        posterior.post_logits, posterior.prior_logits, unimix_share=0.01, free_nats=0.5, gradient="clip"
    )
    losses = [(1, reconstruction), (1, reward), (1, cont), (1, dynamics), (0.1, representation)]

    starts = merge_time(posterior.states)
    dream = stop(imagine(agent, stop(params), state.slow_critic, stop(starts), dream_key, knobs=knobs))
    following, returns = dream.value[H], []
    for h in reversed(range(H)):
        future = (1 - 0.95) * dream.value[h + 1] + 0.95 * following
        following = dream.reward[h + 1] + dream.cont[h + 1] * future
        returns.insert(0, following)
    returns = jnp.stack(returns)
    weight = jnp.stack([jnp.prod(dream.cont[: h + 1], 0) for h in range(H)])
    low = 0.99 * state.return_scale.low + 0.01 * jnp.percentile(returns, 5)
    high = 0.99 * state.return_scale.high + 0.01 * jnp.percentile(returns, 95)
    advantage = (returns - dream.value[:H]) / jnp.maximum(1, high - low)

    policy = action_distribution(agent, agent.networks.actor.apply(params.actor, dream.features[:H]))
    actor = -weight * (policy.log_prob(dream.action) * stop(advantage) + entropy_scale * policy.entropy())
    logits = agent.networks.critic.apply(params.critic, dream.features[:H])
    critic = two_hot_cross_entropy(logits, returns, agent.bins)
    critic = weight * (critic + two_hot_cross_entropy(logits, dream.slow_value[:H], agent.bins))
    losses += [(1, actor), (1, critic)]

    bootstrap = returns[0].reshape(T, B)
    following, replay_returns = bootstrap[T - 1], []
    for t in reversed(range(T - 1)):
        lambda_ = jnp.where(batch.is_last[t + 1], 0, knobs.return_lambda)
        future = (1 - lambda_) * bootstrap[t + 1] + lambda_ * following
        following = batch.reward[t + 1] + jnp.where(batch.is_terminal[t + 1], 0, 1 - 1 / 333) * future
        replay_returns.insert(0, following)
    logits = agent.networks.critic.apply(params.critic, features[: T - 1])
    slow_value = stop(predict_value(agent, state.slow_critic, features[: T - 1]))
    replay_critic = two_hot_cross_entropy(logits, jnp.stack(replay_returns), agent.bins)
    replay_critic = replay_critic + two_hot_cross_entropy(logits, slow_value, agent.bins)
    losses += [(0.3, jnp.where(batch.is_last[: T - 1], 0, replay_critic))]
    return sum(scale * loss.mean() for scale, loss in losses), ReturnScale(low=low, high=high)


class PlainOptimizer:
    """Clipping by the parameter's norm, then LaProp, in float64; the first update is number 1."""

    def __init__(self, param) -> None:
        self.param, self.number, self.square, self.momentum = np.asarray(param, np.float64), 0, 0.0, 0.0

    def update(self, gradient, learning_rate: float) -> jax.Array:
        gradient = np.asarray(gradient, np.float64)
        limit = 0.3 * max(1e-3, np.linalg.norm(self.param))
        gradient = gradient / max(1, np.linalg.norm(gradient) / limit)
        self.number += 1
        self.square = 0.999 * self.square + 0.001 * gradient**2
        gradient = gradient / (np.sqrt(self.square / (1 - 0.999**self.number)) + 1e-6)
        self.momentum = 0.9 * self.momentum + 0.1 * gradient
        self.param = self.param - learning_rate * self.momentum / (1 - 0.9**self.number)
        return jnp.asarray(self.param, jnp.float32)


def test_joint_updates_equal_a_plain_composition(either):
    """Three updates in a row, from one `jax.grad` of the sum of all losses and an optimizer in numpy."""
    agent = either.agent
    gradient = jit(jax.grad(functools.partial(plain_total_loss, agent), has_aux=True))
    plain = either.state
    optimizers = jax.tree.map(PlainOptimizer, plain.params)
    rates = Params(world_model=1e-2, actor=3e-3, critic=5e-3)
    for batch in either.batches:
        # Half a cosine from 0.1 to a fifth of it, over 100 updates.
        entropy_scale = 0.1 * (0.2 + 0.8 * (1 + math.cos(math.pi * int(plain.step) / 100)) / 2)
        inputs = plain.replace(params=None, opt_state=None)
        gradients, return_scale = gradient(plain.params, inputs, batch, jnp.float32(entropy_scale))
        params = Params(
            **{
                part: jax.tree.map(
                    functools.partial(PlainOptimizer.update, learning_rate=getattr(rates, part)),
                    getattr(optimizers, part),
                    getattr(gradients, part),
                )
                for part in PARTS
            }
        )
        plain = plain.replace(
            step=plain.step + 1,
            params=params,
            slow_critic=jax.tree.map(lambda slow, fast: 0.98 * slow + 0.02 * fast, plain.slow_critic, params.critic),
            return_scale=return_scale,
            key=jax.random.split(plain.key, 3)[2],
        )

    state, _ = run(either)
    for part in PARTS:
        actual, expected = getattr(state.params, part), getattr(plain.params, part)
        chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(state.slow_critic, plain.slow_critic, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(state.return_scale, plain.return_scale, rtol=1e-4)
    assert same(state.key, plain.key)
    assert int(state.step) == 53


# -- The same update in its other forms


def test_the_update_is_traced_once_for_any_state_batch_and_knobs(discrete):
    """`Setup.step` raises when it is traced a second time."""
    state, _ = run(discrete)
    state, _ = run(discrete, state.replace(knobs=make_knobs(CONFIG, entropy_scale=0.5, discount=0.9)))
    fresh = jax.tree.map(lambda x: jnp.zeros_like(x), discrete.state)
    discrete.step(fresh, discrete.batches[0])
    assert int(state.step) == 56


def test_several_updates_in_one_dispatch_equal_one_after_the_other_and_the_state_is_donated(discrete):
    many = jit(functools.partial(train_steps, discrete.agent), donate_argnums=0)
    donated = jax.tree.map(jnp.copy, discrete.state)
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), *discrete.batches)
    state, metrics, latents = many(donated, batches)
    assert latents is None
    expected, history = run(discrete)
    assert same(state.key, expected.key)
    assert int(state.step) == int(expected.step) == 53
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-3, atol=2e-5)
    chex.assert_trees_all_close(state.opt_state, expected.opt_state, rtol=1e-3, atol=1e-5)
    mean = jax.tree.map(lambda *values: sum(values) / U, *history)
    chex.assert_trees_all_close(metrics, mean, rtol=1e-3, atol=1e-4)
    # A donated buffer that could not be used would have been a warning, and warnings are errors.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((donated.params, donated.opt_state, donated.slow_critic)))


@pytest.mark.parametrize("size", [1, 2])
def test_a_population_equals_its_members_trained_apart(discrete, size):
    changes = [{}, {"world_model_learning_rate": 2e-3, "actor_learning_rate": 1e-2, "entropy_scale": 0.7}]
    members = [discrete.state.replace(knobs=make_knobs(CONFIG, **change)) for change in changes[:size]]
    population = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    step = jit(jax.vmap(functools.partial(update, discrete.agent), in_axes=(0, None)))
    population, metrics = step(population, discrete.batches[0])
    results = [discrete.step(member, discrete.batches[0]) for member in members]
    for index, (state, own_metrics) in enumerate(results):
        member = jax.tree.map(lambda x, index=index: x[index], population)
        chex.assert_trees_all_close(member.params, state.params, rtol=1e-3, atol=2e-5)
        chex.assert_trees_all_close(member.slow_critic, state.slow_critic, rtol=1e-3, atol=2e-5)
        for name, value in own_metrics.items():
            np.testing.assert_allclose(metrics[name][index], value, rtol=1e-3, atol=1e-4, err_msg=name)
    if size == 2:
        assert not same(results[0][0].params.actor, results[1][0].params.actor)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("discrete", "joint"), ("continuous", "joint"), ("discrete", "world_model"), ("discrete", "actor_critic")],
)
def test_bfloat16_keeps_the_state_in_float32(kind, mode):
    agent = make_agent(kind, dataclasses.replace(CONFIG, precision="bfloat16"))
    before = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0))
    step = functools.partial(update, agent, mode=mode)
    after, metrics = jax.eval_shape(step, before, random_batch(kind, 0))
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(after)] == [(x.shape, x.dtype) for x in jax.tree.leaves(before)]
    assert {x.dtype for x in jax.tree.leaves((before.params, metrics))} == {jnp.dtype(jnp.float32)}


def test_unrolled_and_rematerialised_is_the_same_update(either):
    state, batch = either.state, either.batches[0]
    config = dataclasses.replace(CONFIG, observe_unroll=2, imagine_unroll=3, rematerialise=True)
    otherwise = make_agent(either.agent.spaces.actions[0].kind, config)
    one, one_metrics = either.step(state, batch)
    other, other_metrics = jit(functools.partial(update, otherwise))(state, batch)
    chex.assert_trees_all_close(one.params, other.params, rtol=1e-3, atol=2e-5)
    for name, value in one_metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_rematerialising_computes_hidden_layers_again():
    """The world model's hidden layers are computed once more: more work, for less memory."""
    state = jax.eval_shape(functools.partial(init_train_state, make_agent("discrete")), jax.random.PRNGKey(0))

    def work(config: AgentConfig) -> int:
        step = functools.partial(update, make_agent("discrete", config))
        return matmul_flop(jax.make_jaxpr(step)(state, random_batch("discrete", 0)).jaxpr)

    assert 1.05 < work(dataclasses.replace(CONFIG, rematerialise=True)) / work(CONFIG) < 1.5
