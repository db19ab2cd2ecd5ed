"""Observations -> embedding [..., E]."""

import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.config import ModelConfig
from dreamerjax.math.transforms import symlog
from dreamerjax.nets.layers import MLP, Dtype
from dreamerjax.nets.vision import MULTIPLES, ImageEncoder
from dreamerjax.types import Array, ObsSpec


class Encoder(nn.Module):
    """Embeds every observation key; the parts are concatenated, vectors first.

    Vectors are compressed by symlog, concatenated and go through one MLP; images go through one `ImageEncoder`.
    """

    obs: tuple[ObsSpec, ...]
    config: ModelConfig
    dtype: Dtype
    multiples: tuple[int, ...] = MULTIPLES

    @nn.compact
    def __call__(self, obs: dict[str, Array]) -> Array:
        vectors = [symlog(obs[spec.name]) for spec in self.obs if not spec.is_image]
        images = [obs[spec.name] for spec in self.obs if spec.is_image]
        parts = []
        if vectors:
            mlp = MLP(self.config.encoder_layers, self.config.hidden, self.dtype, name="vectors")
            parts.append(mlp(jnp.concatenate(vectors, -1)))
        if images:
            parts.append(ImageEncoder(self.config.depth, self.dtype, self.multiples, name="images")(images))
        return jnp.concatenate(parts, -1)
