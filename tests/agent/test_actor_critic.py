"""Targets of imagined trajectories and the losses of actor and critic, with tables worked out by hand."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.actor_critic import accumulated_grad, actor_loss, critic_loss, dream_targets
from dreamerjax.agent.agent import init_knobs
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.policy import action_distribution, categorical_actions
from dreamerjax.agent.predictions import predict_value
from dreamerjax.config import ReturnsConfig
from dreamerjax.nets.networks import init_params
from dreamerjax.types import Params, ReturnScale, Trajectory
from tests.agent.small import CONFIG, DISCRETE, KEY, A, H, column, largest, make_agent, random_params, random_start

T, B = 4, 3
ZERO_SCALE = ReturnScale(low=jnp.zeros(()), high=jnp.zeros(()))


def hand_made_dream() -> Trajectory:
    return Trajectory(
        features=jnp.zeros((2, 1, 4)),
        action=jnp.zeros((2, 1, A)),
        reward=column(9, 1, 2),  # that of the start came before the dream
        cont=column(0.5, 0.5, 1),
        value=column(1, 2, 4),
        slow_value=column(7, 8, 9),
    )


def test_targets_worked_out_by_hand():
    # R_1 = r_2 + c_2 V_2 = 2 + 1 * 4 = 6,   R_0 = r_1 + c_1 (V_1 + R_1) / 2 = 1 + 0.5 (1 + 3) = 3
    targets, scale = dream_targets(DISCRETE, hand_made_dream(), ZERO_SCALE, return_lambda=0.5)
    np.testing.assert_allclose(targets.returns, column(3, 6))
    np.testing.assert_allclose(targets.weight, column(0.5, 0.25))  # the start's own cont counts
    np.testing.assert_allclose(targets.slow_value, column(7, 8))
    # 5% and 95% of the way from 3 to 6, and one hundredth of that: too small a range to divide by.
    np.testing.assert_allclose([scale.low, scale.high], [0.0315, 0.0585], rtol=1e-5)
    np.testing.assert_allclose(targets.advantage, column(3 - 1, 6 - 2))


def test_the_return_scale_is_updated_before_it_divides_the_advantage():
    returns = ReturnsConfig(imagination_horizon=H, scale_rate=1.0, scale_low=0.0, scale_high=1.0)
    agent = make_agent("discrete", dataclasses.replace(CONFIG, returns=returns))
    targets, scale = dream_targets(agent, hand_made_dream(), ZERO_SCALE, return_lambda=0.5)
    np.testing.assert_allclose([scale.low, scale.high], [3, 6])
    np.testing.assert_allclose(targets.advantage, column(2 / 3, 4 / 3), rtol=1e-6)


def test_a_start_that_has_ended_has_no_weight():
    dream = hand_made_dream().replace(cont=column(0, 0.5, 1))
    targets, _ = dream_targets(DISCRETE, dream, ZERO_SCALE, return_lambda=0.5)
    np.testing.assert_array_equal(targets.weight, column(0, 0))
    np.testing.assert_allclose(targets.returns, column(3, 6))  # whether the start had ended is not the future


def test_targets_are_constants():
    def total(dream, scale):
        targets, scale = dream_targets(DISCRETE, dream, scale, return_lambda=0.5)
        return sum(leaf.sum() for leaf in jax.tree.leaves((targets, scale)))

    gradients = jax.grad(total, argnums=(0, 1))(hand_made_dream(), ZERO_SCALE)
    assert largest(gradients) == 0


def test_the_actor_loss_moves_neither_the_world_model_nor_a_critic():
    """Neither the action, nor the advantage, nor the weight carries a gradient out of the dream."""
    params, slow_critic = random_params(DISCRETE), random_params(DISCRETE, seed=1).critic

    def loss(params: Params, slow_critic):
        dream = imagine(DISCRETE, params, slow_critic, random_start(), KEY, knobs=init_knobs(CONFIG))
        targets, _ = dream_targets(DISCRETE, dream, ZERO_SCALE, return_lambda=0.95)
        features = jax.lax.stop_gradient(dream.features[:H])
        policy = action_distribution(DISCRETE, DISCRETE.networks.actor.apply(params.actor, features))
        return actor_loss(policy, dream.action, targets.advantage, targets.weight, entropy_scale=3e-4).mean()

    gradient, of_slow_critic = jit(jax.grad(loss, argnums=(0, 1)))(params, slow_critic)
    assert largest(gradient.world_model) == largest(gradient.critic) == largest(of_slow_critic) == 0
    assert largest(gradient.actor) > 0


def test_the_actor_loss_worked_out_by_hand():
    """Two equal choices: log pi = -ln 2, entropy = ln 2, so -w (-ln 2 A + eta ln 2) = w ln 2 (A - eta)."""
    action, advantage, weight = jnp.array([1.0, 0.0]), jnp.array(2.0), jnp.array(0.5)

    def loss(logits, advantage, weight):
        return actor_loss(categorical_actions(logits), action, advantage, weight, entropy_scale=0.1)

    np.testing.assert_allclose(loss(jnp.zeros(2), advantage, weight), 0.5 * np.log(2) * (2 - 0.1), rtol=1e-6)
    gradients = jax.grad(loss, argnums=(0, 1, 2))(jnp.zeros(2), advantage, weight)
    # d log pi(a) / d logits = one_hot(a) - pi; the entropy is at its maximum.
    np.testing.assert_allclose(gradients[0], [-0.5 * 2 * 0.5, 0.5 * 2 * 0.5], rtol=1e-6)
    assert largest(gradients[1:]) == 0


def test_the_critic_loss_worked_out_by_hand():
    """Uniform logits cost ln 3 for any target, twice: w (1 + 0.5) ln 3."""
    bins, weight = jnp.array([-1.0, 0.0, 1.0]), jnp.array(0.2)

    def loss(logits, returns, slow_value, weight):
        return critic_loss(logits, returns, slow_value, weight, bins, slow_scale=0.5)

    inputs = (jnp.zeros(3), jnp.array(1.0), jnp.array(-0.5), weight)
    np.testing.assert_allclose(loss(*inputs), 0.2 * 1.5 * np.log(3), rtol=1e-6)
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*inputs)
    # softmax - two-hot for each term: (1/3, 1/3, -2/3) and half of (-1/6, -1/6, 1/3)
    np.testing.assert_allclose(gradients[0], 0.2 * np.array([1 / 4, 1 / 4, -1 / 2]), rtol=1e-5)
    assert largest(gradients[1:]) == 0


def test_the_critic_starts_at_exactly_zero():
    params = jit(lambda key: init_params(DISCRETE.networks, key).critic)(KEY)
    features = jax.random.normal(KEY, (T, B, 32))
    np.testing.assert_array_equal(predict_value(DISCRETE, params, features), np.zeros((T, B)))


@pytest.mark.parametrize("rows", [1, 4])
def test_accumulated_grad_equals_the_gradient_of_the_mean(rows):
    rng = np.random.default_rng(0)
    params = {"matrix": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "bias": jnp.asarray([0.1, -0.2])}
    data = (
        jnp.asarray(rng.normal(size=(rows, 5, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(rows, 5)), jnp.float32),
    )

    def loss(params, row):
        x, y = row
        error = jnp.tanh(x @ params["matrix"] + params["bias"][None]).sum(-1) - y
        return jnp.square(error).mean(), {"error": error.mean(), "largest": jnp.abs(error).max()}

    def mean_loss(params):
        each = [loss(params, jax.tree.map(lambda x, t=t: x[t], data)) for t in range(rows)]
        losses, metrics = zip(*each, strict=True)
        return sum(losses) / rows, jax.tree.map(lambda *values: sum(values) / rows, *metrics)

    gradient, metrics = jit(functools.partial(accumulated_grad, loss))(params, data)
    expected, expected_metrics = jit(jax.grad(mean_loss, has_aux=True))(params)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-5, atol=1e-6)
