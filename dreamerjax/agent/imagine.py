"""Imagined trajectories for training the actor and the critic (section "Actor critic learning")."""

import chex
import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.predictions import predict_cont, predict_reward, predict_value
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import BlockState, in_blocks, latent_features, latent_noise, out_of_blocks
from dreamerjax.types import Array, Knobs, LatentState, Params, PRNGKey, Trajectory, Variables


def assert_latent(agent: Agent, state: LatentState) -> None:
    """Checks the shapes of N latent states against the agent's architecture, while tracing."""
    model = agent.config.model
    chex.assert_shape(state.deter, (None, model.deter))
    chex.assert_shape(state.stoch, (state.deter.shape[0], model.groups, model.classes))


def imagine(
    agent: Agent, params: Params, slow_critic: Variables, start: LatentState, key: PRNGKey, *, knobs: Knobs
) -> Trajectory:
    """Imagines H steps with the prior and the actor from N states, one scan over H.

    The heads are computed inside the scan, one step at a time: their hidden layers then stay in the cache.

    Args:
        agent: the static parts.
        params: all trained parameters; no gradient is meant to pass.
        slow_critic: parameters of the slow critic.
        start: N states.
        key: consumed.
        knobs: the discount, and the one that the continue head learned.

    Returns:
        The trajectories, [H, N, ...] and [H + 1, N].
    """
    assert_latent(agent, start)
    # 1, unless the world model is frozen and another discount is wanted now.
    discount_ratio = knobs.discount / knobs.cont_discount

    def predict(features: Array) -> dict[str, Array]:
        return {
            "reward": predict_reward(agent, params.world_model, features),
            "cont": predict_cont(agent, params.world_model, features),
            "value": predict_value(agent, params.critic, features),
            "slow_value": predict_value(agent, slow_critic, features),
        }

    def step(latent: BlockState, key: PRNGKey) -> tuple[BlockState, tuple[Array, Array, dict[str, Array]]]:
        action_key, latent_key = jax.random.split(key)
        noise = latent_noise(latent_key, latent.stoch.shape[0], config=agent.config.model)
        features = latent_features(out_of_blocks(latent))
        outputs = apply(agent.networks.actor, params.actor, features)
        action = action_distribution(agent, outputs).sample(action_key)
        following = apply(
            agent.networks.world_model, params.world_model, latent, action, noise, method=WorldModel.imagine_in_blocks
        )
        return following, (features, action, predict(features))

    keys = jax.random.split(key, agent.config.returns.imagination_horizon)
    last, (features, action, predictions) = jax.lax.scan(
        step, in_blocks(start, agent.config.model.blocks), keys, unroll=agent.config.imagine_unroll
    )
    predictions = jax.tree.map(
        lambda steps, end: jnp.concatenate([steps, end[None]]),
        predictions,
        predict(latent_features(out_of_blocks(last))),
    )
    predictions["cont"] = predictions["cont"] * discount_ratio
    return Trajectory(features=features, action=action, **predictions)
