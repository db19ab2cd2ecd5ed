"""Programs whose matrix products are wrong in a way that is chosen when they run: compiled once, many faults."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxprs_in_params

from dreamerjax.bench.flops import matmul_flop

MANTISSA = 23  # bits of a float32


class Flaw(NamedTuple):
    """What is wrong with every product, or with one."""

    bits: Any = MANTISSA  # of the mantissa that are left of what is multiplied: 10 is TF32, 7 is bfloat16
    transposed: Any = False  # whether the layers with this kernel multiply by its transpose


def flawed(function: Callable[..., Any], *inputs: Any, kernel: tuple[int, ...]) -> Callable[..., Any]:
    """The function as (flaw, *inputs) -> outputs, where the flaw is data.

    Args:
        function: of arrays.
        inputs: like those that it will get.
        kernel: shape [..., n, n] of the kernel that may be transposed.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*inputs)
    structure = jax.tree.structure(shapes)

    def run(flaw: Flaw, *inputs: Any) -> Any:
        outputs = _evaluate(closed, jax.tree.leaves(inputs), flaw, kernel)
        return jax.tree.unflatten(structure, outputs)

    return run


def _evaluate(closed: Any, inputs: list[Any], flaw: Flaw, kernel: tuple[int, ...]) -> list[Any]:
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs], strict=True))

    def value(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else values[atom]

    for equation in jaxpr.eqns:
        name, params, given = equation.primitive.name, equation.params, [value(x) for x in equation.invars]
        if name == "scan":
            outputs = _scan(params, given, flaw, kernel)
        elif name == "dot_general":
            outputs = [_product(params, *given, flaw, kernel)]
        elif called := params.get("jaxpr", params.get("call_jaxpr")):
            outputs = _evaluate(
                called if isinstance(called, ClosedJaxpr) else ClosedJaxpr(called, []), given, flaw, kernel
            )
        else:
            assert not any(map(matmul_flop, jaxprs_in_params(params))), (
                f"{name} holds products, expected a scan or call"
            )
            outputs = equation.primitive.bind(*given, **params)
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [value(x) for x in jaxpr.outvars]


def _scan(params: dict[str, Any], given: list[Any], flaw: Flaw, kernel: tuple[int, ...]) -> list[Any]:
    constants, carried = params["num_consts"], params["num_carry"]
    fixed, start, rows = given[:constants], given[constants:][:carried], given[constants + carried :]

    def step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = _evaluate(params["jaxpr"], [*fixed, *carry, *row], flaw, kernel)
        return outputs[:carried], outputs[carried:]

    last, stacked = jax.lax.scan(step, start, rows, length=params["length"], reverse=params["reverse"])
    return [*last, *stacked]


def _product(params: dict[str, Any], left: Any, right: Any, flaw: Flaw, kernel: tuple[int, ...]) -> Any:
    is_layer = params["dimension_numbers"][0] == ((left.ndim - 1,), (right.ndim - 2,)) and right.shape == kernel
    if is_layer:
        right = jnp.where(flaw.transposed, right.swapaxes(-1, -2), right)
    return jax.lax.dot_general_p.bind(_rounded(left, flaw.bits), _rounded(right, flaw.bits), **params)


def _rounded(x: Any, bits: Any) -> Any:
    """The nearest numbers with so many bits of mantissa, of float32."""
    dropped = jnp.int32(MANTISSA - bits)
    half = jnp.where(dropped > 0, 1 << jnp.maximum(dropped - 1, 0), 0)
    whole = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jax.lax.bitcast_convert_type((whole + half) & (jnp.int32(-1) << dropped), jnp.float32)
