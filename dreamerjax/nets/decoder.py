"""Features [..., F] -> predicted observations."""

import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.config import ModelConfig
from dreamerjax.nets.layers import MLP, Dtype, dense
from dreamerjax.nets.vision import MULTIPLES, ImageDecoder
from dreamerjax.types import Array, ObsSpec


class Decoder(nn.Module):
    """Predicts every observation key from the latent state, float32: vectors in symlog space, images in 0 ... 1."""

    obs: tuple[ObsSpec, ...]
    config: ModelConfig
    dtype: Dtype
    multiples: tuple[int, ...] = MULTIPLES

    @nn.compact
    def __call__(self, features: Array) -> dict[str, Array]:
        config, dtype = self.config, self.dtype
        vectors = [spec for spec in self.obs if not spec.is_image]
        images = tuple(spec for spec in self.obs if spec.is_image)
        decoded: dict[str, Array] = {}
        if vectors:
            hidden = MLP(config.decoder_layers, config.hidden, dtype, name="vectors")(features)
            for spec in vectors:
                decoded[spec.name] = dense(spec.shape[0], dtype, name=f"out_{spec.name}")(hidden).astype(jnp.float32)
        if images:
            decoder = ImageDecoder(
                images, config.depth, config.blocks, config.hidden, dtype, self.multiples, name="images"
            )
            decoded |= decoder(*jnp.split(features, [config.deter], -1))  # as `latent_features` put them together
        return decoded
