"""Actor and critic learn from dreams (sections "Critic learning" and "Actor learning")."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import ActionDistribution, action_distribution
from dreamerjax.math.returns import discount_weights, lambda_returns
from dreamerjax.math.scaling import return_range, update_return_scale
from dreamerjax.math.transforms import two_hot_cross_entropy, two_hot_mean
from dreamerjax.nets.heads import Head
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import latent_features, latent_noise
from dreamerjax.types import (
    Array,
    Batch,
    DreamTargets,
    Knobs,
    LatentState,
    Metrics,
    Params,
    PRNGKey,
    ReturnScale,
    Trajectory,
    Variables,
)


def critic_value(agent: Agent, params: Variables, features: Array, known: Array | None = None) -> Array:
    """Mean value [...] that a critic gives to features [..., F]; for `known` see `Head`."""
    return two_hot_mean(apply(agent.networks.critic, params, features, known), agent.bins)


def imagine(agent: Agent, params: Params, slow_critic: Variables, start: LatentState, key: PRNGKey) -> Trajectory:
    """Dreams H steps with the prior and the actor from N states, one scan over H.

    The heads are computed inside the scan, a step at a time: their hidden layers then stay in the cache.

    Args:
        agent: the static parts.
        params: all trained parameters; no gradient is meant to pass.
        slow_critic: parameters of the slow critic.
        start: N states.
        key: consumed.

    Returns:
        The dreams, [H, N, ...] and [H + 1, N].
    """
    model, actor, critic = agent.networks

    def predict(features: Array, critic_first: Array | None) -> dict[str, Array]:
        reward_logits = apply(model, params.world_model, features, method=WorldModel.reward)
        cont_logit = apply(model, params.world_model, features, method=WorldModel.cont)
        return {
            "reward": two_hot_mean(reward_logits, agent.bins),
            "cont": jax.nn.sigmoid(cont_logit),
            "value": critic_value(agent, params.critic, features, critic_first),
            "slow_value": critic_value(agent, slow_critic, features),
        }

    def step(latent: LatentState, key: PRNGKey) -> tuple[LatentState, tuple]:
        action_key, latent_key = jax.random.split(key)
        noise = latent_noise(latent_key, latent.stoch.shape[0], config=agent.config.model)
        features = latent_features(latent)
        # Kept for the gradients, which would make the same products again.
        first = (
            apply(actor, params.actor, features, method=Head.first),
            apply(critic, params.critic, features, method=Head.first),
        )
        action = action_distribution(agent, apply(actor, params.actor, features, first[0])).sample(action_key)
        following = apply(model, params.world_model, latent, action, noise, method=WorldModel.imagine_step)
        return following, (features, action, first, predict(features, first[1]))

    keys = jax.random.split(key, agent.config.returns.imagination_horizon)
    last, (features, action, (actor_first, critic_first), predictions) = jax.lax.scan(
        step, start, keys, unroll=agent.config.imagine_unroll
    )
    predictions = jax.tree.map(
        lambda steps, end: jnp.concatenate([steps, end[None]]), predictions, predict(latent_features(last), None)
    )
    return Trajectory(
        features=features, action=action, actor_first=actor_first, critic_first=critic_first, **predictions
    )


def dream_targets(
    agent: Agent, dream: Trajectory, scale: ReturnScale, *, return_lambda: Array | float
) -> tuple[DreamTargets, ReturnScale]:
    """Lambda returns of dreams and the scaled advantage; the scale is updated first."""
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


def replay_returns(
    reward: Array, is_last: Array, is_terminal: Array, bootstrap: Array, *, discount: Array, return_lambda: Array
) -> Array:
    """Lambda returns [T-1, B] over replayed rewards, bootstrapped from the dreams that start at each row.

    `is_terminal` cuts the future; `is_last` bootstraps at once instead of looking on into the next episode.

    Args:
        reward: [T, B].
        is_last: [T, B] bool.
        is_terminal: [T, B] bool.
        bootstrap: [T, B], the first imagined return at each row.
        discount: [] per step.
        return_lambda: [].
    """
    live = (1 - is_terminal[1:].astype(jnp.float32)) * discount
    lambda_ = (1 - is_last[1:].astype(jnp.float32)) * return_lambda
    return lambda_returns(reward[1:], live, bootstrap[1:], bootstrap[-1], lambda_=lambda_)


def replay_critic_loss(
    agent: Agent,
    critic: Variables,
    slow_critic: Variables,
    features: Array,
    batch: Batch,
    bootstrap: Array,
    knobs: Knobs,
) -> Array:
    """The critic's loss [T-1, B] on replayed rows; its gradient also reaches the features.

    Args:
        agent: the static parts.
        critic: parameters, with the gradient.
        slow_critic: parameters of the slow critic.
        features: [T, B, F] of the posterior, with the gradient.
        batch: [T, B, ...].
        bootstrap: [T, B], the first imagined return at each row; constant.
        knobs: discount and lambda.
    """
    returns = replay_returns(
        batch.reward,
        batch.is_last,
        batch.is_terminal,
        bootstrap,
        discount=knobs.discount,
        return_lambda=knobs.return_lambda,
    )
    features, weight = features[:-1], 1 - batch.is_last[:-1].astype(jnp.float32)
    slow_value = critic_value(agent, slow_critic, jax.lax.stop_gradient(features))
    logits = apply(agent.networks.critic, critic, features)
    return critic_loss(logits, returns, slow_value, weight, agent.bins, slow_scale=agent.config.critic.slow_scale)


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


def actor_critic_grad(
    agent: Agent, actor: Variables, critic: Variables, dream: Trajectory, targets: DreamTargets, *, entropy_scale: Array
) -> tuple[tuple[Variables, Variables], Metrics]:
    """Gradients of the actor's and the critic's loss on dreams, each a mean over [H, N].

    Returns:
        (gradient of the actor, gradient of the critic), and the metrics.
    """
    config = agent.config

    def loss(params: tuple[Variables, Variables], row: tuple[Trajectory, DreamTargets]) -> tuple[Array, Metrics]:
        dream, target = row
        outputs = apply(agent.networks.actor, params[0], dream.features, dream.actor_first)
        policy, action = action_distribution(agent, outputs), dream.action
        of_actor = actor_loss(policy, action, target.advantage, target.weight, entropy_scale=entropy_scale).mean()
        logits = apply(agent.networks.critic, params[1], dream.features, dream.critic_first)
        of_critic = critic_loss(
            logits, target.returns, target.slow_value, target.weight, agent.bins, slow_scale=config.critic.slow_scale
        ).mean()
        metrics = {"actor_loss": of_actor, "critic_loss": of_critic, "actor_entropy": policy.entropy().mean()}
        return config.actor.loss_scale * of_actor + config.critic.loss_scale * of_critic, metrics

    taken = jax.tree.map(lambda x: x[: len(dream.action)], dream)  # the states in which an action was taken
    return accumulated_grad(loss, (actor, critic), (taken, targets))
