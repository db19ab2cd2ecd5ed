"""The critic's loss on replayed rows; its gradient also reaches the world model (section "Critic learning")."""

import chex
import jax
import jax.numpy as jnp

from dreamerjax.agent.actor_critic import critic_loss
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.predictions import predict_value
from dreamerjax.math.returns import lambda_returns
from dreamerjax.nets.networks import apply
from dreamerjax.types import Array, Batch, Knobs, Variables


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
    chex.assert_equal_shape([batch.reward, bootstrap])
    chex.assert_equal_shape_prefix([batch.reward, features], 2)
    returns = replay_returns(
        batch.reward,
        batch.is_last,
        batch.is_terminal,
        bootstrap,
        discount=knobs.discount,
        return_lambda=knobs.return_lambda,
    )
    features, weight = features[:-1], 1 - batch.is_last[:-1].astype(jnp.float32)
    slow_value = predict_value(agent, slow_critic, jax.lax.stop_gradient(features))
    logits = apply(agent.networks.critic, critic, features)
    return critic_loss(logits, returns, slow_value, weight, agent.bins, slow_scale=agent.config.critic.slow_scale)
