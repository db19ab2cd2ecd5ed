"""Percentile return scale (section "Actor learning")."""

import jax.numpy as jnp

from dreamerjax.types import Array, ReturnScale


def update_return_scale(scale: ReturnScale, returns: Array, *, rate: float, low: float, high: float) -> ReturnScale:
    """Moves the running percentiles towards those of a batch of returns.

    Args:
        scale: running percentiles; they start at 0 and are not debiased.
        returns: any shape.
        rate: share of the way to move (0.01).
        low: lower percentile as a fraction (0.05).
        high: upper percentile as a fraction (0.95).

    Returns:
        The new running percentiles.
    """
    batch_low, batch_high = jnp.quantile(returns, jnp.array([low, high], returns.dtype))
    return ReturnScale(
        low=(1 - rate) * scale.low + rate * batch_low,
        high=(1 - rate) * scale.high + rate * batch_high,
    )


def return_range(scale: ReturnScale) -> Array:
    """max(1, high - low) []: only large returns are scaled down, small ones are never scaled up."""
    return jnp.maximum(1.0, scale.high - scale.low)
