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

    def setup(self) -> None:
        self.mlp = MLP(self.layers, self.hidden, self.dtype)
        self.out = dense(self.outputs, self.dtype, scale=self.output_scale)

    def __call__(self, features: Array) -> Array:
        """Features [..., F] -> outputs [..., outputs] float32."""
        return self.out(self.mlp(features)).astype(jnp.float32)
