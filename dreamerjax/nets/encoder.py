"""Observations -> embedding [..., E]."""

import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.math.transforms import symlog
from dreamerjax.nets.layers import MLP, Dtype
from dreamerjax.types import Array, ObsSpec


class Encoder(nn.Module):
    """Embeds every observation key; the parts are concatenated, vectors first.

    Vectors are compressed by symlog, concatenated and go through one MLP. Images will be a second part.
    """

    obs: tuple[ObsSpec, ...]
    layers: int
    hidden: int
    dtype: Dtype

    @nn.compact
    def __call__(self, obs: dict[str, Array]) -> Array:
        vectors = [symlog(obs[spec.name]) for spec in self.obs if len(spec.shape) == 1]
        parts = [MLP(self.layers, self.hidden, self.dtype, name="vectors")(jnp.concatenate(vectors, -1))]
        return jnp.concatenate(parts, -1)
