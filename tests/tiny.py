"""What the tests of networks and agent share: a tiny architecture and random parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.config import ModelConfig

MODEL = ModelConfig(
    deter=16,
    hidden=8,
    groups=4,
    classes=4,
    blocks=4,
    depth=4,
    bins=31,
    encoder_layers=1,
    decoder_layers=1,
    actor_layers=1,
    critic_layers=1,
)


def random_like(shapes: Any, *, scale: float, seed: int = 0, small_returns: bool = False) -> Any:
    """Random numbers in the shapes of parameters, without the structure of the initial ones: nothing is zero.

    Args:
        shapes: a pytree of arrays, or of their shapes and dtypes.
        scale: standard deviation.
        seed: of the numbers.
        small_returns: makes a two-hot bin the less likely the farther it is, so that rewards and values stay small.
    """
    generator = np.random.default_rng(seed)

    def random(leaf: Any) -> jax.Array:
        values = scale * generator.normal(size=leaf.shape)
        if small_returns and leaf.shape == (MODEL.bins,):
            values -= 3 * np.abs(np.arange(MODEL.bins) - MODEL.bins // 2)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map(random, shapes)
