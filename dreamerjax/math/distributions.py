"""Categorical latents with uniform mixture, their balanced KL, and the distributions of the actor."""

from typing import Literal

import chex
import jax
import jax.numpy as jnp

from dreamerjax.types import Array


def unimix_probs(logits: Array, share: float) -> Array:
    """Probabilities [..., K] = (1 - share) softmax(logits) + share / K (section "World model learning")."""
    return (1 - share) * jax.nn.softmax(logits.astype(jnp.float32)) + share / logits.shape[-1]


def unimix(logits: Array, share: float) -> Array:
    """Log probabilities [..., K] of `unimix_probs`."""
    if share == 0:
        return jax.nn.log_softmax(logits.astype(jnp.float32))
    return jnp.log(unimix_probs(logits, share))


def sample_one_hot(probs: Array, uniform: Array) -> Array:
    """Draws one-hot samples [..., K] by inverting the distribution function.

    No gradient passes; see `straight_through`.

    Args:
        probs: [..., K].
        uniform: [...] in [0, 1), one number for each sample.
    """
    chex.assert_equal_shape_prefix([probs, uniform], uniform.ndim)
    cdf = jnp.cumsum(probs, -1)
    # Scaled by the last entry, which rounding keeps from being exactly 1.
    threshold = uniform[..., None] * cdf[..., -1:]
    index = (cdf[..., :-1] <= threshold).sum(-1)
    return jax.lax.stop_gradient(jax.nn.one_hot(index, probs.shape[-1], dtype=probs.dtype))


def straight_through(sample: Array, probs: Array) -> Array:
    """The sample [..., K] in value, the probabilities in gradient (Bengio et al. 2013)."""
    return sample + (probs - jax.lax.stop_gradient(probs))


def mode_one_hot(log_probs: Array) -> Array:
    """The most likely class, as one-hot [..., K]."""
    return jax.nn.one_hot(log_probs.argmax(-1), log_probs.shape[-1], dtype=log_probs.dtype)


def categorical_entropy(log_probs: Array) -> Array:
    """Entropy [...] in nats of log probabilities [..., K]."""
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


def categorical_kl(p_log_probs: Array, q_log_probs: Array) -> Array:
    """KL(p || q) [...] in nats of log probabilities [..., K]."""
    return (jnp.exp(p_log_probs) * (p_log_probs - q_log_probs)).sum(-1)


def free_nats_floor(kl: Array, free_nats: float, gradient: Literal["clip", "straight_through"]) -> Array:
    """max(free_nats, kl), element by element.

    Below the threshold the gradient is 0 with "clip" (the published loss), or still that of the KL with
    "straight_through", which keeps the prior learning where its KL is already small.
    """
    if gradient == "clip":
        return jnp.maximum(free_nats, kl)
    return kl + jax.lax.stop_gradient(jnp.maximum(free_nats, kl) - kl)


def balanced_kl(
    post_logits: Array,
    prior_logits: Array,
    *,
    unimix_share: float,
    free_nats: float,
    gradient: Literal["clip", "straight_through"],
) -> tuple[Array, Array]:
    """Dynamics and representation losses with free bits.

    dynamics = max(free_nats, KL(sg(posterior) || prior)), representation = max(free_nats, KL(posterior || sg(prior))),
    each KL summed over the S groups before the maximum.

    Args:
        post_logits: [..., S, K].
        prior_logits: [..., S, K].
        unimix_share: share of the uniform distribution in both.
        free_nats: threshold in nats.
        gradient: what passes below the threshold; see `free_nats_floor`.

    Returns:
        dynamics [...] and representation [...] in nats.
    """
    chex.assert_equal_shape([post_logits, prior_logits])
    stop = jax.lax.stop_gradient
    post, prior = unimix(post_logits, unimix_share), unimix(prior_logits, unimix_share)
    dynamics = categorical_kl(stop(post), prior).sum(-1)
    representation = categorical_kl(post, stop(prior)).sum(-1)
    return free_nats_floor(dynamics, free_nats, gradient), free_nats_floor(representation, free_nats, gradient)


def normal_mean_std(mean_logits: Array, std_logits: Array) -> tuple[Array, Array]:
    """Mean tanh(m) and standard deviation 0.9 sigmoid(s + 2) + 0.1 of the continuous policy, each [..., A]."""
    return jnp.tanh(mean_logits), 0.9 * jax.nn.sigmoid(std_logits + 2.0) + 0.1


def normal_log_prob(x: Array, mean: Array, std: Array) -> Array:
    """Log density [...] of x [..., A] under independent normals, summed over the vector."""
    return (-0.5 * jnp.square((x - mean) / std) - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)).sum(-1)


def normal_entropy(std: Array) -> Array:
    """Entropy [...] in nats of independent normals with standard deviations [..., A], summed over the vector."""
    return (jnp.log(std) + 0.5 * jnp.log(2 * jnp.pi * jnp.e)).sum(-1)


def bernoulli_cross_entropy(logit: Array, target: Array) -> Array:
    """Binary cross entropy [...] of a logit with a target in [0, 1] that may be soft."""
    logit = logit.astype(jnp.float32)
    return -(target * jax.nn.log_sigmoid(logit) + (1 - target) * jax.nn.log_sigmoid(-logit))
