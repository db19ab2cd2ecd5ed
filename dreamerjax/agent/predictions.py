"""Decoded predictions of the heads for a latent state: reward, continuation, value.

The continue head's probability contains the discount that the head learned (`Knobs.cont_discount`).
"""

import jax

from dreamerjax.agent.agent import Agent
from dreamerjax.math.transforms import two_hot_mean
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.types import Array, Variables


def predict_reward(agent: Agent, world_model: Variables, features: Array) -> Array:
    """Mean reward [...] of arriving in the states with features [..., F]."""
    return two_hot_mean(apply(agent.networks.world_model, world_model, features, method=WorldModel.reward), agent.bins)


def predict_cont(agent: Agent, world_model: Variables, features: Array) -> Array:
    """Probability [...] that the episode continues from features [..., F], times the learned discount."""
    return jax.nn.sigmoid(apply(agent.networks.world_model, world_model, features, method=WorldModel.cont))


def undiscounted(cont: Array, cont_discount: Array | float) -> Array:
    """Takes the learned discount out of `predict_cont`; approximation errors can give values slightly above 1."""
    return cont / cont_discount


def predict_value(agent: Agent, critic: Variables, features: Array) -> Array:
    """Mean value [...] that a critic assigns to features [..., F]."""
    return two_hot_mean(apply(agent.networks.critic, critic, features), agent.bins)
