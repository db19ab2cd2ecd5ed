"""Acting: the distribution over actions, and one step of the agent in an environment."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.math.distributions import (
    categorical_entropy,
    mode_one_hot,
    normal_entropy,
    normal_log_prob,
    normal_mean_std,
    sample_one_hot,
    unimix,
)
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import initial_latent, latent_features, latent_noise
from dreamerjax.types import Array, Params, PolicyState, PRNGKey

Policy = Callable[[Params, PolicyState, dict[str, Any], Any, PRNGKey], tuple[PolicyState, Array, PRNGKey]]


class ActionDistribution(NamedTuple):
    """Functions of a distribution over actions [..., A]; discrete actions are one-hot."""

    sample: Callable[[PRNGKey], Array]  # consumes the key -> [..., A]
    mode: Callable[[], Array]  # [..., A]
    log_prob: Callable[[Array], Array]  # action [..., A] -> [...]
    entropy: Callable[[], Array]  # [...] in nats
    std: Callable[[], Array]  # [..., A] standard deviation of each number; of a choice, that of its one-hot


def categorical_actions(logits: Array, unimix_share: float = 0.0) -> ActionDistribution:
    """One of A choices, from logits [..., A]."""
    log_probs = unimix(logits, unimix_share)
    return ActionDistribution(
        sample=lambda key: sample_one_hot(jnp.exp(log_probs), jax.random.uniform(key, log_probs.shape[:-1])),
        mode=lambda: mode_one_hot(log_probs),
        log_prob=lambda action: (action * log_probs).sum(-1),
        entropy=lambda: categorical_entropy(log_probs),
        std=lambda: jnp.sqrt(jnp.exp(log_probs) * (1 - jnp.exp(log_probs))),
    )


def normal_actions(outputs: Array) -> ActionDistribution:
    """Independent normals, from [..., 2A]: raw means, then raw standard deviations. Samples are not squashed."""
    mean, std = normal_mean_std(*jnp.split(outputs, 2, -1))
    return ActionDistribution(
        sample=lambda key: mean + std * jax.random.normal(key, mean.shape),
        mode=lambda: mean,
        log_prob=lambda action: normal_log_prob(action, mean, std),
        entropy=lambda: normal_entropy(std),
        std=lambda: std,
    )


def joint_actions(parts: Sequence[ActionDistribution], sizes: Sequence[int]) -> ActionDistribution:
    """Independent parts of an action, side by side, of these sizes."""
    ends = list(itertools.accumulate(sizes))[:-1]

    def log_prob(action: Array) -> Array:
        each = zip(parts, jnp.split(action, ends, -1), strict=True)
        return jnp.stack([part.log_prob(own) for part, own in each]).sum(0)

    return ActionDistribution(
        sample=lambda key: jnp.concatenate(
            [part.sample(own) for part, own in zip(parts, jax.random.split(key, len(parts)), strict=True)], -1
        ),
        mode=lambda: jnp.concatenate([part.mode() for part in parts], -1),
        log_prob=log_prob,
        entropy=lambda: jnp.stack([part.entropy() for part in parts]).sum(0),
        std=lambda: jnp.concatenate([part.std() for part in parts], -1),
    )


def action_distribution(agent: Agent, outputs: Array) -> ActionDistribution:
    """The policy's distribution, from the outputs of the actor network."""
    specs = agent.spaces.actions
    ends = list(itertools.accumulate(spec.outputs for spec in specs))
    parts = [
        categorical_actions(part, agent.config.actor.unimix) if spec.kind == "discrete" else normal_actions(part)
        for spec, part in zip(specs, jnp.split(outputs, ends[:-1], -1), strict=True)
    ]
    return parts[0] if len(parts) == 1 else joint_actions(parts, [spec.size for spec in specs])


def initial_policy_state(agent: Agent, batch: int) -> PolicyState:
    """The policy state of `batch` agents before their first step: zeros."""
    model = agent.networks.world_model
    return PolicyState(
        latent=initial_latent(batch, agent.config.model, model.dtype),
        prev_action=jnp.zeros((batch, agent.spaces.action_size)),
    )


def policy_step(
    agent: Agent,
    params: Params,
    policy_state: PolicyState,
    obs: dict[str, Array],
    is_first: Array,
    key: PRNGKey,
    *,
    greedy: bool = False,
) -> tuple[PolicyState, Array]:
    """Updates the latent state with an observation and chooses an action.

    Args:
        agent: the static parts.
        params: all trained parameters.
        policy_state: of B agents; ignored where `is_first`.
        obs: name -> [B, ...].
        is_first: [B] bool.
        key: consumed.
        greedy: the most likely action instead of a sample.

    Returns:
        The next policy state and the action [B, A].
    """
    chex.assert_shape(policy_state.prev_action, (*is_first.shape, agent.spaces.action_size))
    chex.assert_equal_shape_prefix([is_first, *obs.values()], 1)
    latent_key, action_key = jax.random.split(key)
    model = agent.networks.world_model
    embed = apply(model, params.world_model, obs, method=WorldModel.encode)
    latent, _ = apply(
        model,
        params.world_model,
        policy_state.latent,
        policy_state.prev_action,
        embed,
        is_first,
        latent_noise(latent_key, *is_first.shape, config=agent.config.model),
        method=WorldModel.observe_step,
    )
    distribution = action_distribution(agent, apply(agent.networks.actor, params.actor, latent_features(latent)))
    action = distribution.mode() if greedy else distribution.sample(action_key)
    return PolicyState(latent=latent, prev_action=action), action


@functools.lru_cache(maxsize=8)
def jit_policy(agent: Agent, *, greedy: bool = False) -> Policy:
    """The compiled `policy_step`: (params, policy state, obs, is_first, key) -> (policy state, action, next key).

    Cached: the same agent gets the same function.
    """

    @jax.jit
    def policy(
        params: Params, state: PolicyState, obs: dict[str, Array], is_first: Array, key: PRNGKey
    ) -> tuple[PolicyState, Array, PRNGKey]:
        step_key, next_key = jax.random.split(key)
        state, action = policy_step(agent, params, state, obs, is_first, step_key, greedy=greedy)
        return state, action, next_key

    return policy
