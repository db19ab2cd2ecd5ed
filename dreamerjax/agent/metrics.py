"""Metrics of an update, all of them scalars []."""

import math

import jax.numpy as jnp
import optax

from dreamerjax.agent.agent import Agent
from dreamerjax.math.scaling import return_range
from dreamerjax.types import Array, DreamTargets, Metrics, ReturnScale, Trajectory, Variables

LEAST_RANGE = 1e-4  # nats between lowest and highest entropy; below it, the policy has no choice


def gradient_norms(grads: dict[str, Variables]) -> Metrics:
    """Gradient norm of each trained network, and of each module of the world model."""
    norms = {f"{name}_grad_norm": optax.tree.norm(grad) for name, grad in grads.items()}
    return norms | module_grad_norms(grads["world_model"]) if "world_model" in grads else norms


def dream_metrics(dream: Trajectory, targets: DreamTargets, scale: ReturnScale) -> Metrics:
    """Means over imagined trajectories, and the spread of the advantage."""
    return {
        "critic_lag": jnp.abs(dream.value - dream.slow_value).mean(),
        "value_mean": dream.value.mean(),
        "return_mean": targets.returns.mean(),
        "return_scale": return_range(scale),
        "advantage_std": targets.advantage.std(),
        "dream_reward_mean": dream.reward[1:].mean(),
        "dream_cont_mean": dream.cont[1:].mean(),
    }


def module_grad_norms(world_model_grad: Variables) -> Metrics:
    """Norm of the gradient that reaches each part of the world model: `grad_norm/prior` and so on."""
    modules = dict(world_model_grad["params"])
    rssm = modules.pop("rssm")
    parts = {name.removesuffix("_head"): [module] for name, module in modules.items()}
    for name, module in rssm.items():
        parts.setdefault(name.partition("_")[0], []).append(module)
    return {f"grad_norm/{name}": optax.tree.norm(part) for name, part in parts.items()}


def entropy_range(agent: Agent) -> tuple[float, float]:
    """The lowest and the highest entropy in nats that the policy can have."""
    lowest = highest = 0.0
    for part in agent.spaces.actions:
        if part.kind == "discrete":
            rest = agent.config.actor.unimix / part.size
            probs = [1 - (part.size - 1) * rest, *[rest] * (part.size - 1)]
            lowest -= sum(p * math.log(p) for p in probs if p > 0)
            highest += math.log(part.size)
        else:  # the standard deviation is 0.1 to 1: see `normal_mean_std`
            lowest += part.size * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.1))
            highest += part.size * 0.5 * math.log(2 * math.pi * math.e)
    return lowest, highest


def entropy_share(agent: Agent, entropy: Array) -> Array:
    """Position of an entropy [...] in nats between the lowest, 0, and the highest, 1, that the policy can have.

    A policy without a choice (one action for each part, or `actor.unimix` 1) has the share 1.
    """
    lowest, highest = entropy_range(agent)
    if highest - lowest < LEAST_RANGE:
        return jnp.ones_like(entropy)
    return (entropy - lowest) / (highest - lowest)
