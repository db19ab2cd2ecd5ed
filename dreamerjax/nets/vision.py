"""Image encoder and decoder: convolution stages that halve the resolution, and the reverse stages.

Images of several keys must have the same height and width. They are stacked along the channels, in the order of the
keys, and pass through one network.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.config import ConfigError, ModelConfig
from dreamerjax.nets.layers import BlockDense, Dtype, NormAct, dense, to_blocks, truncated_normal
from dreamerjax.types import Array, ObsSpec

MULTIPLES = (2, 3, 4, 4)  # channels of each stage, in units of `depth`; each stage halves height and width
LARGEST = 96  # height and width

# After each pixel was doubled, a kernel of 5 taps around the new pixel 0 or 1 of one old pixel reads its two neighbours
# and itself: which of the three, one-hot, [new pixel, tap, old pixel].
READS = np.eye(3, dtype=np.float32)[(np.arange(2)[:, None] + np.arange(5)) // 2]


def check_observations(obs: Sequence[ObsSpec], config: ModelConfig) -> None:
    """Refuses what the networks cannot see.

    Raises:
        ConfigError: an observation is neither a vector nor an image, or an image has a size that does not fit.
    """
    for spec in obs:
        if not (spec.classes or spec.is_vector or spec.is_image):
            raise ConfigError(
                f"The observation {spec.name!r} has the shape {spec.shape}, expected (size,) for a vector or "
                "(height, width, channels) for an image."
            )
    images, factor = [spec for spec in obs if spec.is_image], 2 ** len(MULTIPLES)
    for spec in images:
        *sizes, channels = spec.shape
        if channels < 1 or any(size % factor or not 0 < size <= LARGEST for size in sizes):
            raise ConfigError(
                f"The image {spec.name!r} has the shape (height, width, channels) = {spec.shape}, expected height and "
                f"width to be multiples of {factor}, at most {LARGEST}, and a channel or more. Resize or pad it in the "
                "environment."
            )
    if len({spec.shape[:2] for spec in images}) > 1:
        shapes = ", ".join(f"{spec.name!r} {spec.shape}" for spec in images)
        raise ConfigError(f"The images have the shapes {shapes}, expected one height and width. Resize them.")
    channels = config.depth * MULTIPLES[-1]
    if images and channels % config.blocks:
        raise ConfigError(
            f"agent.model.depth is {config.depth}, expected {MULTIPLES[-1]} x depth to be a multiple of "
            f"agent.model.blocks, which is {config.blocks}: each block draws a share of the channels."
        )


class ImageEncoder(nn.Module):
    """Images [..., height, width, channels] of 0 ... 255 -> embedding [..., E], row by row.

    Each stage: 5x5 convolution, the largest of 2x2 pixels, RMS norm over the channels, silu.
    """

    depth: int
    dtype: Dtype
    multiples: tuple[int, ...] = MULTIPLES

    @nn.compact
    def __call__(self, images: Sequence[Array]) -> Array:
        x = jnp.concatenate(images, -1)
        lead = x.shape[:-3]
        x = x.reshape(-1, *x.shape[-3:]).astype(jnp.float32) / 255 - 0.5
        for index, multiple in enumerate(self.multiples):
            x = Conv(self.depth * multiple, self.dtype, name=f"conv{index}")(x)
            x = NormAct(self.dtype, name=f"act{index}")(_halve(x))
        return x.reshape(*lead, -1)


class ImageDecoder(nn.Module):
    """Latent state -> predicted images [..., height, width, channels] in 0 ... 1, by name.

    The smallest picture is a sum: each block of the recurrent state draws a share of the channels, two layers draw from
    the latent groups. The encoder's stages follow in reverse: doubled pixels, 5x5 convolution, norm, silu.
    """

    images: tuple[ObsSpec, ...]
    depth: int
    blocks: int  # G
    hidden: int
    dtype: Dtype
    multiples: tuple[int, ...] = MULTIPLES

    @nn.compact
    def __call__(self, deter: Array, stoch: Array) -> dict[str, Array]:
        """Reads deter [..., D] and the flattened stoch [..., S*K]."""
        lead = deter.shape[:-1]
        height, width = (size // 2 ** len(self.multiples) for size in self.images[0].shape[:2])
        shape = (height, width, self.depth * self.multiples[-1])
        x = smallest_picture(deter, stoch, shape, blocks=self.blocks, hidden=self.hidden, dtype=self.dtype)
        for index, multiple in reversed(list(enumerate(self.multiples[:-1]))):
            x = DoublingConv(self.depth * multiple, self.dtype, name=f"conv{index}")(x)
            x = NormAct(self.dtype, name=f"act{index}")(x)
        x = DoublingConv(sum(spec.shape[-1] for spec in self.images), self.dtype, name="out")(x)
        return as_images(x.reshape(*lead, *x.shape[1:]), self.images)


def smallest_picture(
    deter: Array, stoch: Array, shape: tuple[int, int, int], *, blocks: int, hidden: int, dtype: Dtype
) -> Array:
    """The picture [N, height, width, channels] before it grows; makes its layers in the module that calls it.

    Args:
        deter: [..., D].
        stoch: [..., S*K].
        shape: (height, width, channels).
        blocks: G, each of which draws its share of the channels.
        hidden: half the width of the layer on stoch.
        dtype: of the computation.
    """
    height, width, channels = shape
    own = channels // blocks
    deter, stoch = (x.reshape(-1, x.shape[-1]) for x in (deter, stoch))
    drawn = BlockDense(height * width * own, dtype, name="deter")(to_blocks(deter, blocks))
    drawn = jnp.moveaxis(drawn.reshape(blocks, -1, height, width, own), 0, -2)
    x = NormAct(dtype, name="stoch_act")(dense(2 * hidden, dtype, name="stoch_in")(stoch))
    x = dense(math.prod(shape), dtype, name="stoch_out")(x)
    return NormAct(dtype, name="act")(drawn.reshape(-1, *shape) + x.reshape(-1, *shape))


def as_images(x: Array, images: Sequence[ObsSpec]) -> dict[str, Array]:
    """All channels together, unbounded -> images in 0 ... 1, float32, by name."""
    ends = list(itertools.accumulate(spec.shape[-1] for spec in images))
    parts = jnp.split(nn.sigmoid(x.astype(jnp.float32)), ends[:-1], -1)
    return {spec.name: part for spec, part in zip(images, parts, strict=True)}


class Conv(nn.Module):
    """A 5x5 convolution of [N, height, width, channels]; beyond the border are zeros."""

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", truncated_normal(), (5, 5, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype))
        return y + bias.astype(self.dtype)[None, None, None]


class DoublingConv(nn.Module):
    """Makes 2x2 of each pixel of [N, height, width, channels], then a 5x5 convolution; beyond the border are zeros.

    The convolution comes first, though, in a form that gives the same: the 5x5 taps around a new pixel read 3x3 old
    pixels, so with the taps of each added up it is one 3x3 convolution that makes all four new pixels of an old one.
    (Measured on a CPU: 280 ms against 66 for a whole decoder, 1318 against 476 with its gradient.)
    """

    features: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        count, height, width, channels = x.shape
        kernel = self.param("kernel", truncated_normal(), (5, 5, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = jnp.einsum("ash,btw,stio->hwiabo", READS, READS, kernel, precision="highest")
        y = convolve(x.astype(self.dtype), kernel.reshape(3, 3, channels, -1).astype(self.dtype))
        y = jnp.moveaxis(y.reshape(count, height, width, 2, 2, self.features), 3, 2)
        return y.reshape(count, 2 * height, 2 * width, self.features) + bias.astype(self.dtype)[None, None, None]


def _convolve(x: Array, kernel: Array, padding: Any = "SAME") -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def convolve(x: Array, kernel: Array) -> Array:
    """[N, height, width, inputs] and an odd kernel [size, size, inputs, outputs] -> [N, height, width, outputs].

    Inside a loop, as every update is, XLA on a CPU has quick code only for convolutions with their axes in this very
    order, which derived gradients have not (jax-ml/jax issue 12868). So there, the gradient is spelled out. (Measured,
    encoder and decoder with gradients in a scan, size 1m on 64 images of 64x64: 5.9 s against 0.4.)
    """
    return _convolve(x, kernel)


def _backward(inputs: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    def derived(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
        return jax.vjp(_convolve, x, kernel)[1](grad)

    def spelled_out(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
        to_x = _convolve(grad, kernel[::-1, ::-1].swapaxes(2, 3))
        border = (kernel.shape[0] // 2,) * 2
        to_kernel = _convolve(x.transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3), (border, border))
        return to_x, to_kernel.transpose(1, 2, 0, 3)

    return jax.lax.platform_dependent(*inputs, grad, cpu=spelled_out, default=derived)


convolve.defvjp(lambda x, kernel: (_convolve(x, kernel), (x, kernel)), _backward)


def _halve(x: Array) -> Array:
    """[..., height, width, channels] -> half the height and width: the largest of 2x2 pixels, by channel."""
    *lead, height, width, channels = x.shape
    return x.reshape(*lead, height // 2, 2, width // 2, 2, channels).max((-4, -2))
