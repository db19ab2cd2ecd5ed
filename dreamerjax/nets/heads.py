"""Heads on features [..., F]: reward, continue, critic, actor."""

import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.nets.layers import MLP, Dtype, dense
from dreamerjax.types import Array


class Head(nn.Module):
    """An MLP and an output layer, whose result is float32 [..., outputs]."""

    layers: int
    hidden: int
    outputs: int
    output_scale: float  # factor on the initial output weights; 0 starts at exactly zero
    dtype: Dtype

    @nn.compact
    def __call__(self, features: Array) -> Array:
        hidden = MLP(self.layers, self.hidden, self.dtype, name="mlp")(features)
        return dense(self.outputs, self.dtype, scale=self.output_scale, name="out")(hidden).astype(jnp.float32)
