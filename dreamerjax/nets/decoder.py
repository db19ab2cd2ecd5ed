"""Features [..., F] -> predicted observations."""

import math

import chex
import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.config import ModelConfig
from dreamerjax.nets.layers import MLP, Dtype, dense
from dreamerjax.nets.patches import PatchDecoder
from dreamerjax.nets.vision import MULTIPLES, ImageDecoder
from dreamerjax.types import Array, ObsSpec


class Decoder(nn.Module):
    """Predicts every observation key from the latent state, float32.

    Vectors come in symlog space, images in 0 ... 1, integers as logits [..., *shape, classes].
    """

    obs: tuple[ObsSpec, ...]
    config: ModelConfig
    dtype: Dtype
    multiples: tuple[int, ...] = MULTIPLES

    @nn.compact
    def __call__(self, features: Array) -> dict[str, Array]:
        config, dtype = self.config, self.dtype
        chex.assert_shape(features, (..., config.deter + config.groups * config.classes))
        vectors = [spec for spec in self.obs if not spec.is_image]
        images = tuple(spec for spec in self.obs if spec.is_image)
        decoded: dict[str, Array] = {}
        if vectors:
            hidden = MLP(config.decoder_layers, config.hidden, dtype, name="vectors")(features)
            for spec in vectors:
                shape = (*spec.shape, spec.classes) if spec.classes else spec.shape
                out = dense(math.prod(shape), dtype, name=f"out_{spec.name}")(hidden)
                decoded[spec.name] = out.reshape(*features.shape[:-1], *shape).astype(jnp.float32)
        if images:
            shape = (images, config.depth, config.blocks, config.hidden, dtype)
            if config.vision == "patches":
                decoder = PatchDecoder(*shape, name="images")
            else:
                decoder = ImageDecoder(*shape, self.multiples, name="images")
            decoded |= decoder(*jnp.split(features, [config.deter], -1))  # as `latent_features` put them together
        return decoded
