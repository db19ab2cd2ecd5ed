"""Operations counted by the program against operations counted by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from dreamerjax.bench.flops import matmul_flop


def flop(function: Any, *shapes: tuple[int, ...]) -> int:
    return matmul_flop(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def test_a_product_costs_two_operations_for_each_multiply_add():
    assert flop(jnp.matmul, (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert flop(jnp.dot, (5,), (5,)) == 2 * 5


def test_a_batched_product_counts_every_member():
    assert flop(jnp.matmul, (4, 3, 5), (4, 5, 7)) == 4 * 2 * 3 * 5 * 7
    assert flop(jax.vmap(jnp.matmul), (4, 3, 5), (4, 5, 7)) == 4 * 2 * 3 * 5 * 7
    assert flop(lambda x, y: jnp.einsum("gbi,gio->bgo", x, y), (8, 3, 5), (8, 5, 7)) == 8 * 2 * 3 * 5 * 7


def test_what_is_no_product_counts_nothing():
    assert flop(lambda x: jnp.tanh(x).sum() + jnp.linalg.norm(x), (3, 5)) == 0


def test_a_loop_counts_in_full():
    def repeated(x: Any, weights: Any) -> Any:
        return jax.lax.scan(lambda x, _: (x @ weights, None), x, length=6)[0]

    def repeated_twice(x: Any, weights: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, x: repeated(x, weights) @ weights, x)

    assert flop(repeated, (3, 5), (5, 5)) == 6 * 2 * 3 * 5 * 5
    assert flop(repeated_twice, (3, 5), (5, 5)) == 3 * 7 * 2 * 3 * 5 * 5


def test_functions_inside_count_once():
    @jax.custom_vjp
    def own(x: Any) -> Any:
        return x @ x

    own.defvjp(lambda x: (own(x), None), lambda _, g: (g,))
    assert flop(jax.jit(jnp.matmul), (3, 5), (5, 7)) == 2 * 3 * 5 * 7
    assert flop(own, (3, 3)) == 2 * 3 * 3 * 3
    # Forward, then forward again and two gradients.
    square = jax.grad(lambda x, y: jnp.square(jax.checkpoint(lambda x, y: jnp.tanh(x @ y))(x, y)).sum(), (0, 1))
    assert flop(square, (3, 5), (5, 7)) == 4 * 2 * 3 * 5 * 7


def test_of_a_branch_the_costliest_side_counts():
    def branch(x: Any) -> Any:
        return jax.lax.cond(x.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert flop(branch, (3, 3)) == 2 * 2 * 3 * 3 * 3


def test_a_loop_of_unknown_length_is_refused_if_it_holds_products():
    def until(step: Any) -> Any:
        return lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, step, x)

    assert flop(until(lambda x: x + 1), (3, 3)) == 0
    with pytest.raises(ValueError, match="number of turns is unknown"):
        flop(until(lambda x: x @ x), (3, 3))


def test_each_device_of_a_mesh_counts():
    """Eight rows on four devices: each multiplies two. What is not split is done by each."""
    mesh = AbstractMesh((4,), ("devices",))
    split = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(P("devices"), P()), out_specs=P("devices"))
    assert flop(split, (8, 5), (5, 7)) == 2 * 8 * 5 * 7
    same = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(P(), P()), out_specs=P())
    assert flop(same, (8, 5), (5, 7)) == 4 * 2 * 8 * 5 * 7


def test_only_the_split_axes_of_a_mesh_count():
    mesh = AbstractMesh((4, 2), ("devices", "others"))
    split = jax.shard_map(
        jnp.matmul, mesh=mesh, in_specs=(P("devices"), P()), out_specs=P("devices"), axis_names={"devices"}
    )
    assert flop(split, (8, 5), (5, 7)) == 2 * 8 * 5 * 7


def convolution(padding: str, **options: Any) -> Any:
    options = {"window_strides": (1, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    return lambda image, kernel: jax.lax.conv_general_dilated(image, kernel, padding=padding, **options)


def test_a_convolution_counts_every_tap():
    # 10 images of 6x8 with 3 channels, a kernel of 4x4 to 5 channels: 3x5 places.
    assert flop(convolution("VALID"), (10, 6, 8, 3), (4, 4, 3, 5)) == 2 * 10 * (3 * 5) * (4 * 4) * 3 * 5
    # With stride 2: 2x3 places.
    strided = convolution("VALID", window_strides=(2, 2))
    assert flop(strided, (10, 6, 8, 3), (4, 4, 3, 5)) == 2 * 10 * (2 * 3) * (4 * 4) * 3 * 5


def test_padding_is_no_work():
    # Along one axis of 4, a kernel of 3 has 2, 3, 3, 2 taps inside.
    assert flop(convolution("SAME"), (1, 4, 1, 1), (3, 1, 1, 1)) == 2 * 10
    # Both axes, 7 channels to 5.
    assert flop(convolution("SAME"), (1, 4, 4, 7), (3, 3, 7, 5)) == 2 * 10 * 10 * 7 * 5


def test_zeros_of_a_dilation_are_no_work():
    # A transposed convolution with stride 2: each of 4 numbers meets each of the 2 taps once.
    def transposed(image: Any, kernel: Any) -> Any:
        return jax.lax.conv_transpose(image, kernel, (2,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))

    assert flop(transposed, (10, 4, 3), (2, 3, 5)) == 2 * 10 * (4 * 2) * 3 * 5
    # Two taps that are three apart reach 5 places of 8.
    spread = convolution("VALID", window_strides=(1,), rhs_dilation=(3,), dimension_numbers=("NHC", "HIO", "NHC"))
    assert flop(spread, (1, 8, 1), (2, 1, 1)) == 2 * 5 * 2


def test_groups_of_channels_do_not_meet():
    grouped = convolution("VALID", feature_group_count=2)
    assert flop(grouped, (10, 6, 6, 4), (3, 3, 2, 8)) == 2 * 10 * (4 * 4) * (3 * 3) * 2 * 8


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("options", [{}, {"window_strides": (2, 2)}, {"feature_group_count": 2}])
def test_each_gradient_of_a_convolution_costs_what_it_costs(padding: str, options: dict[str, Any]):
    function = convolution(padding, **options)
    shapes = (10, 7, 8, 4), (4, 3, 4 // options.get("feature_group_count", 1), 6)
    forward = flop(function, *shapes)
    both = jax.grad(lambda image, kernel: jnp.square(function(image, kernel)).sum(), (0, 1))
    assert forward > 0
    assert flop(both, *shapes) == 3 * forward
