"""The basic layers of all networks: dense, block-diagonal, RMS norm, silu."""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dreamerjax.types import Array

Dtype = jnp.dtype


@functools.cache
def truncated_normal(scale: float = 1.0, fan_in: int | None = None) -> nn.initializers.Initializer:
    """Truncated normal (+-2 sd) initialiser with sd 1.1368 * scale / sqrt(fan_in), which has variance scale^2 / fan_in.

    Kept and jitted, because flax traces a layer's initialiser whenever the layer is used: once a shape is enough.

    Args:
        scale: factor on the weights; 0 gives zeros.
        fan_in: number of inputs, where it is not the product of the kernel's dimensions without the last.
    """

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def init(key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> Array:
        # 0.8796 is the standard deviation of a standard normal truncated at +-2.
        sd = scale / 0.87962566103423978 / (fan_in or math.prod(shape[:-1])) ** 0.5
        return sd * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return init


def dense(features: int, dtype: Dtype, *, scale: float = 1.0, name: str | None = None) -> nn.Dense:
    """A dense layer with the project's initialiser; `scale` 0 starts it at zero."""
    return nn.Dense(features, dtype=dtype, kernel_init=truncated_normal(scale), name=name)


def to_blocks(x: Array, blocks: int) -> Array:
    """[..., N, D] -> [..., G, N, D / G]: the block axis in front of the rows, each block contiguous in memory."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], blocks, x.shape[-1] // blocks), -2, -3)


def from_blocks(x: Array) -> Array:
    """[..., G, N, D / G] -> [..., N, D]: the inverse of `to_blocks`."""
    x = jnp.moveaxis(x, -3, -2)
    return x.reshape(*x.shape[:-2], -1)


class BlockDense(nn.Module):
    """Block-diagonal layer [G, N, inputs] -> [G, N, outputs]: block g reads and writes only its own slice."""

    features: int  # of each block
    dtype: Dtype
    use_bias: bool = True
    fan_in: int | None = None  # for the initialiser; the full input width by default

    @nn.compact
    def __call__(self, x: Array) -> Array:
        blocks, _, inputs = x.shape
        kernel = self.param("kernel", truncated_normal(fan_in=self.fan_in), (blocks, inputs, self.features))
        y = jnp.matmul(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (blocks, self.features))
            y = y + bias[:, None].astype(self.dtype)
        return y


class NormAct(nn.Module):
    """RMS norm with float32 statistics and a learned scale (no shift), then silu."""

    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.silu(nn.RMSNorm(epsilon=1e-4, dtype=self.dtype, name="norm")(x))


class MLP(nn.Module):
    """Hidden layers: dense, RMS norm, silu, each `hidden` wide."""

    layers: int
    hidden: int
    dtype: Dtype

    def setup(self) -> None:
        for index in range(self.layers):
            setattr(self, f"dense{index}", dense(self.hidden, self.dtype))
            setattr(self, f"act{index}", NormAct(self.dtype))

    def __call__(self, x: Array) -> Array:
        """[..., inputs] -> [..., hidden]; the inputs themselves if there is no layer."""
        for index in range(self.layers):
            x = getattr(self, f"act{index}")(getattr(self, f"dense{index}")(x))
        return x
