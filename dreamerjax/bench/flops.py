"""Counts the operations of a program's matrix products and convolutions, from its jaxpr.

The count depends on the program only, not on the machine or the compiler. Divided by the time, it gives the
utilisation of a machine. The other operations (activations, losses, the optimizer) are not counted; they are few
compared with the products.
"""

import math
from typing import Any

from jax.extend.core import jaxprs_in_params


def matmul_flop(jaxpr: Any) -> int:
    """Floating-point operations of all matrix products and convolutions in a program, two for each multiply-add.

    Loops count in full. Of a branch, the costliest side counts. What runs once on each device of a mesh counts once
    for each device. Padding and the zeros that a dilation puts between numbers are no work, so a convolution and its
    two gradients count the same.

    Args:
        jaxpr: such as `jax.make_jaxpr(function)(*arguments).jaxpr`.

    Returns:
        The number of operations.

    Raises:
        ValueError: there are products in a `while` loop, whose number of turns nobody knows.
    """
    return sum(_equation_flop(equation) for equation in jaxpr.eqns)


def _equation_flop(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * inner * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        return _convolution_flop(equation)
    inside = [matmul_flop(inner) for inner in jaxprs_in_params(params)]
    if name == "scan":
        return params["length"] * sum(inside)
    if name == "cond":
        return max(inside)
    if name == "while" and any(inside):
        raise ValueError("A while loop holds matrix products; its number of turns is unknown, expected a scan.")
    if name == "shard_map":
        # The shapes inside are those of one device.
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"]) * sum(inside)
    return sum(inside)


def _convolution_flop(equation: Any) -> int:
    params = equation.params
    numbers = params["dimension_numbers"]
    image, kernel = (variable.aval.shape for variable in equation.invars)
    result = equation.outvars[0].aval.shape
    batch, channels_out, *places_out = (result[axis] for axis in numbers.out_spec)
    _, channels_in, *places_kernel = (kernel[axis] for axis in numbers.rhs_spec)  # channels of one group
    places_in = [image[axis] for axis in numbers.lhs_spec[2:]]
    pairs = [
        _pairs(*sizes)
        for sizes in zip(
            places_in,
            places_kernel,
            places_out,
            params["window_strides"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            (low for low, _ in params["padding"]),
            strict=True,
        )
    ]
    return 2 * batch * channels_out * channels_in * math.prod(pairs)


def _pairs(places_in: int, kernel: int, places_out: int, stride: int, spread: int, dilation: int, padding: int) -> int:
    """Along one axis: how often a number of the kernel meets a number of the image, over all results."""
    meetings = (
        place * stride + tap * dilation - padding  # in the image with `spread - 1` zeros between its numbers
        for place in range(places_out)
        for tap in range(kernel)
    )
    return sum(0 <= where <= (places_in - 1) * spread and where % spread == 0 for where in meetings)
