"""Features [..., F] -> predicted observations."""

import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.nets.layers import MLP, Dtype, dense
from dreamerjax.types import Array, ObsSpec


class Decoder(nn.Module):
    """Predicts every observation key from the latent state; vectors in symlog space. Images will be a second part."""

    obs: tuple[ObsSpec, ...]
    layers: int
    hidden: int
    dtype: Dtype

    @nn.compact
    def __call__(self, features: Array) -> dict[str, Array]:
        hidden = MLP(self.layers, self.hidden, self.dtype, name="vectors")(features)
        return {
            spec.name: dense(spec.shape[0], self.dtype, name=f"out_{spec.name}")(hidden).astype(jnp.float32)
            for spec in self.obs
            if len(spec.shape) == 1
        }
