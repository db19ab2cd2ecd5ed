"""Image encoder and decoder with non-overlapping patches: a few matrix products, which are fast on CPUs.

A faster alternative to the convolutions of `vision.py` (`--agent.model.vision patches`). Pixels are reordered once, so
that each patch, and each patch of patches, is contiguous in memory. No data moves between the layers.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from dreamerjax.nets.layers import Dtype, NormAct, dense
from dreamerjax.nets.vision import as_images, smallest_picture
from dreamerjax.types import Array, ObsSpec

SIDES = (8, 2)  # of a patch in each stage, finest first; together as coarse as the stages of convolution
MULTIPLES = (16, 16)  # channels of each stage, in units of `depth`


def to_patches(image: Array) -> Array:
    """[N, height, width, channels] -> [N, coarse patches, 2*2, 8*8, channels], each patch in one piece."""
    count, height, width, channels = image.shape
    coarsest_first = SIDES[::-1]
    whole = math.prod(SIDES)
    split = image.reshape(count, height // whole, *coarsest_first, width // whole, *coarsest_first, channels)
    levels = len(SIDES) + 1
    pairs = [axis for level in range(levels) for axis in (1 + level, 1 + levels + level)]  # rows beside columns
    joined = split.transpose(0, *pairs, 2 * levels + 1)
    return joined.reshape(count, -1, *(side * side for side in coarsest_first), channels)


def from_patches(patches: Array, height: int, width: int) -> Array:
    """[N, coarse patches, 2*2, 8*8, channels] -> [N, height, width, channels]: the inverse of `to_patches`."""
    count, channels = patches.shape[0], patches.shape[-1]
    coarsest_first = SIDES[::-1]
    whole = math.prod(SIDES)
    sides = [size for side in coarsest_first for size in (side, side)]
    split = patches.reshape(count, height // whole, width // whole, *sides, channels)
    levels = len(SIDES) + 1
    rows, columns = ([1 + 2 * level + which for level in range(levels)] for which in (0, 1))
    return split.transpose(0, *rows, *columns, 2 * levels + 1).reshape(count, height, width, channels)


class PatchEncoder(nn.Module):
    """Images [..., height, width, channels] of 0 ... 255 -> embedding [..., E], row by row.

    Each stage: one dense layer on all numbers of a patch, RMS norm, silu.
    """

    depth: int
    dtype: Dtype

    @nn.compact
    def __call__(self, images: Sequence[Array]) -> Array:
        """Reads images of one height and width."""
        x = jnp.concatenate(images, -1)
        *lead, height, width, channels = x.shape
        x = to_patches(x.reshape(-1, height, width, channels))  # as bytes, before they become numbers of four
        x = x.astype(self.dtype) / 255 - 0.5
        for index, multiple in enumerate(MULTIPLES):
            x = x.reshape(*x.shape[:-2], -1)
            x = dense(self.depth * multiple, self.dtype, name=f"patch{index}")(x)
            x = NormAct(self.dtype, name=f"act{index}")(x)
        return x.reshape(*lead, -1)


class PatchDecoder(nn.Module):
    """Latent state -> predicted images [..., height, width, channels] in 0 ... 1, by name: the encoder backwards."""

    images: tuple[ObsSpec, ...]
    depth: int
    blocks: int  # G
    hidden: int
    dtype: Dtype

    @nn.compact
    def __call__(self, deter: Array, stoch: Array) -> dict[str, Array]:
        """Reads deter [..., D] and the flattened stoch [..., S*K]."""
        height, width = self.images[0].shape[:2]
        whole = math.prod(SIDES)
        shape = (height // whole, width // whole, self.depth * MULTIPLES[-1])
        x = smallest_picture(deter, stoch, shape, blocks=self.blocks, hidden=self.hidden, dtype=self.dtype)
        x = x.reshape(len(x), -1, shape[-1])
        for index in reversed(range(len(SIDES))):
            channels = self.depth * MULTIPLES[index - 1] if index else sum(spec.shape[-1] for spec in self.images)
            x = dense(SIDES[index] ** 2 * channels, self.dtype, name=f"patch{index}")(x)
            x = x.reshape(*x.shape[:-1], -1, channels)
            if index:
                x = NormAct(self.dtype, name=f"act{index}")(x)
        x = from_patches(x, height, width)
        return as_images(x.reshape(*deter.shape[:-1], *x.shape[1:]), self.images)
