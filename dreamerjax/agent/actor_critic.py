"""Losses of actor and critic on imagined trajectories (sections "Critic learning" and "Actor learning")."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import ActionDistribution, action_distribution
from dreamerjax.math.returns import discount_weights, lambda_returns
from dreamerjax.math.scaling import return_range, update_return_scale
from dreamerjax.math.transforms import two_hot_cross_entropy
from dreamerjax.nets.networks import apply
from dreamerjax.types import Array, DreamTargets, Metrics, ReturnScale, Trajectory, Variables


class ActorCritic(NamedTuple):
    """Parameters of actor and critic, or gradients of the same shapes."""

    actor: Variables
    critic: Variables


def dream_targets(
    agent: Agent, dream: Trajectory, scale: ReturnScale, *, return_lambda: Array | float
) -> tuple[DreamTargets, ReturnScale]:
    """Lambda returns of dreams and the scaled advantage; the scale is updated first."""
    chex.assert_rank(dream.reward, 2)
    chex.assert_equal_shape([dream.reward, dream.cont, dream.value, dream.slow_value])
    config = agent.config.returns
    returns = lambda_returns(dream.reward[1:], dream.cont[1:], dream.value[1:], dream.value[-1], lambda_=return_lambda)
    scale = update_return_scale(scale, returns, rate=config.scale_rate, low=config.scale_low, high=config.scale_high)
    targets = DreamTargets(
        returns=returns,
        advantage=(returns - dream.value[:-1]) / return_range(scale),
        weight=discount_weights(dream.cont[:-1]),
        slow_value=dream.slow_value[:-1],
    )
    return jax.lax.stop_gradient((targets, scale))


def actor_loss(
    policy: ActionDistribution, action: Array, advantage: Array, weight: Array, *, entropy_scale: Array | float
) -> Array:
    """REINFORCE with entropy: -weight (log pi(a) sg(advantage) + eta entropy), [...] (section "Actor learning").

    Args:
        policy: distribution over actions [..., A], with the gradient.
        action: [..., A] taken.
        advantage: [...] scaled; constant.
        weight: [...] constant.
        entropy_scale: eta.
    """
    log_prob = policy.log_prob(jax.lax.stop_gradient(action))
    chex.assert_equal_shape([log_prob, advantage, weight])
    advantage, weight = jax.lax.stop_gradient((advantage, weight))
    return -weight * (log_prob * advantage + entropy_scale * policy.entropy())


def critic_loss(
    logits: Array, returns: Array, slow_value: Array, weight: Array, bins: Array, *, slow_scale: float
) -> Array:
    """weight (CE(two_hot(R)) + slow_scale CE(two_hot(slow critic's mean))), [...] (section "Critic learning").

    Args:
        logits: [..., M], with the gradient.
        returns: [...] constant.
        slow_value: [...] constant.
        weight: [...] constant.
        bins: [M].
        slow_scale: weight of staying near the slow critic.
    """
    returns, slow_value, weight = jax.lax.stop_gradient((returns, slow_value, weight))
    towards_returns = two_hot_cross_entropy(logits, returns, bins)
    towards_slow = two_hot_cross_entropy(logits, slow_value, bins)
    return weight * (towards_returns + slow_scale * towards_slow)


def actor_critic_loss(
    agent: Agent, params: ActorCritic, dream: Trajectory, targets: DreamTargets, *, entropy_scale: Array
) -> tuple[Array, Metrics]:
    """Mean loss [] of actor and critic on imagined states [..., N], and its metrics.

    Args:
        agent: the static parts.
        params: parameters, with the gradient.
        dream: of the states in which an action is taken: `features`, `action`.
        targets: constants.
        entropy_scale: [].
    """
    config = agent.config
    policy = action_distribution(agent, apply(agent.networks.actor, params.actor, dream.features))
    of_actor = actor_loss(policy, dream.action, targets.advantage, targets.weight, entropy_scale=entropy_scale).mean()
    logits = apply(agent.networks.critic, params.critic, dream.features)
    of_critic = critic_loss(
        logits, targets.returns, targets.slow_value, targets.weight, agent.bins, slow_scale=config.critic.slow_scale
    ).mean()
    metrics = {"actor_loss": of_actor, "critic_loss": of_critic, "actor_entropy": policy.entropy().mean()}
    return config.actor.loss_scale * of_actor + config.critic.loss_scale * of_critic, metrics


def actor_critic_grad(
    agent: Agent, params: ActorCritic, dream: Trajectory, targets: DreamTargets, *, entropy_scale: Array
) -> tuple[ActorCritic, Metrics]:
    """Gradient of `actor_critic_loss`, a mean over [H, N], and its metrics."""

    def loss(params: ActorCritic, row: tuple[Trajectory, DreamTargets]) -> tuple[Array, Metrics]:
        return actor_critic_loss(agent, params, *row, entropy_scale=entropy_scale)

    taken = jax.tree.map(lambda x: x[: len(dream.action)], dream)  # the states in which an action was taken
    return accumulated_grad(loss, params, (taken, targets))


def accumulated_grad(loss: Callable[[Any, Any], tuple[Array, Metrics]], params: Any, rows: Any) -> tuple[Any, Metrics]:
    """Gradient of the mean of `loss(params, row)` over the leading axis of `rows`, one row at a time.

    Equals `jax.grad` of the mean over all rows at once. The rows are constants, so the gradient is a plain
    sum over them; taken step by step, the activations of one row fit in the cache.
    """

    def add(total: Any, row: Any) -> tuple[Any, Metrics]:
        grads, metrics = jax.grad(loss, has_aux=True)(params, row)
        return jax.tree.map(jnp.add, total, grads), metrics

    total, metrics = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), rows)
    count = jax.tree.leaves(rows)[0].shape[0]
    return jax.tree.map(lambda x: x / count, total), jax.tree.map(lambda x: x.mean(0), metrics)
