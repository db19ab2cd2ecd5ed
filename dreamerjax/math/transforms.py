"""Symlog, and regression by classification: two-hot encoding over bins (DreamerV3, section "Robust predictions")."""

import chex
import jax
import jax.numpy as jnp

from dreamerjax.types import Array


def symlog(x: Array) -> Array:
    """symlog(x) = sign(x) ln(|x| + 1): compresses large magnitudes, is the identity near 0."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """symexp(x) = sign(x) (exp(|x|) - 1): the inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def symexp_bins(size: int) -> Array:
    """Bins [M] = symexp(-20 ... 20), odd in number and exactly symmetric around 0."""
    if size < 3 or size % 2 == 0:
        raise ValueError(f"The number of bins is {size}, expected an odd number, 3 or more.")
    lower = symexp(jnp.linspace(-20.0, 0.0, (size + 1) // 2, dtype=jnp.float32))
    return jnp.concatenate([lower, -lower[:-1][::-1]])


def _neighbours(x: Array, bins: Array) -> tuple[Array, Array]:
    """Index k [...] of the bin below each x and weight [...] of bin k + 1; x beyond the range counts as its border."""
    x = jnp.clip(x.astype(jnp.float32), bins[0], bins[-1])
    below = jnp.clip(jnp.searchsorted(bins, x, side="right") - 1, 0, bins.shape[0] - 2)
    low, high = bins[below], bins[below + 1]
    return below, (x - low) / (high - low)


def two_hot(x: Array, bins: Array) -> Array:
    """Encodes scalars as weights on the two nearest bins, by distance in raw space.

    Args:
        x: raw scalars [...]; beyond the range of the bins they count as its border.
        bins: ascending [M].

    Returns:
        Weights [..., M] that sum to 1 and whose mean over the bins is x.
    """
    chex.assert_rank(bins, 1)
    below, weight = _neighbours(x, bins)
    index = jnp.broadcast_to(jnp.arange(bins.shape[0]), (*x.shape, bins.shape[0]))
    is_below = index == below[..., None]
    is_above = index == below[..., None] + 1
    return jnp.where(is_below, 1 - weight[..., None], 0.0) + jnp.where(is_above, weight[..., None], 0.0)


def two_hot_mean(logits: Array, bins: Array) -> Array:
    """Mean [...] of the distribution over symmetric bins [M] that the logits [..., M] give.

    The probabilities of each bin and its negative are subtracted before they are weighted, so that uniform logits
    give exactly 0. (Weighting first, as one would, leaves the rounding of bins of 5e8: 0.1 or more after fusion.)
    """
    chex.assert_rank(bins, 1)
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    half = bins.shape[0] // 2
    paired = probs[..., half + 1 :] - probs[..., :half][..., ::-1]
    return jnp.matmul(paired, bins[half + 1 :], precision="highest")  # an accelerator would round the bins


def two_hot_cross_entropy(logits: Array, target: Array, bins: Array) -> Array:
    """Cross entropy [...] of the logits [..., M] with the two-hot encoding of raw targets [...].

    Equals -sum(two_hot(target) * log_softmax(logits)) but only reads the two logits that count.
    """
    chex.assert_rank(bins, 1)
    chex.assert_equal_shape_prefix([logits, target], target.ndim)
    logits = logits.astype(jnp.float32)
    below, weight = _neighbours(target, bins)
    neighbours = jnp.stack([below, below + 1], -1)
    low, high = jnp.moveaxis(jnp.take_along_axis(logits, neighbours, -1), -1, 0)
    return jax.nn.logsumexp(logits, -1) - (1 - weight) * low - weight * high
