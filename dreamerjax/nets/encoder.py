"""Observations -> embedding [..., E]."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamerjax.config import ModelConfig
from dreamerjax.math.transforms import symlog
from dreamerjax.nets.layers import MLP, Dtype
from dreamerjax.nets.patches import PatchEncoder
from dreamerjax.nets.vision import MULTIPLES, ImageEncoder
from dreamerjax.types import Array, ObsSpec


class Encoder(nn.Module):
    """Embeds every observation key; the parts are concatenated, vectors first.

    Vectors, compressed by symlog, and integers, as one-hot, are concatenated and go through one MLP; images go through
    one network of `vision.py` or `patches.py`.
    """

    obs: tuple[ObsSpec, ...]
    config: ModelConfig
    dtype: Dtype
    multiples: tuple[int, ...] = MULTIPLES

    @nn.compact
    def __call__(self, obs: dict[str, Array]) -> Array:
        for spec in self.obs:
            chex.assert_shape(obs[spec.name], (..., *spec.shape))
        vectors = [_as_vector(spec, obs[spec.name]) for spec in self.obs if not spec.is_image]
        images = [obs[spec.name] for spec in self.obs if spec.is_image]
        parts = []
        if vectors:
            mlp = MLP(self.config.encoder_layers, self.config.hidden, self.dtype, name="vectors")
            parts.append(mlp(jnp.concatenate(vectors, -1)))
        if images:
            if self.config.vision == "patches":
                encoder = PatchEncoder(self.config.depth, self.dtype, name="images")
            else:
                encoder = ImageEncoder(self.config.depth, self.dtype, self.multiples, name="images")
            parts.append(encoder(images))
        return jnp.concatenate(parts, -1)


def _as_vector(spec: ObsSpec, x: Array) -> Array:
    """[..., size]: a vector in symlog space, or integers [..., *shape] as one-hot."""
    if not spec.classes:
        return symlog(x)
    one_hot = jax.nn.one_hot(x, spec.classes)
    return one_hot.reshape(*x.shape[: x.ndim - len(spec.shape)], -1)
