"""Layers that save work equal the plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax.nets.heads import Head


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_known_first_layer_changes_neither_outputs_nor_gradients(layers):
    head = Head(layers, 8, 5, output_scale=1.0, dtype=jnp.dtype(jnp.float32))
    features = jax.random.normal(jax.random.PRNGKey(0), (3, 4, 6))
    params = jax.jit(head.init)(jax.random.PRNGKey(1), features)
    first = head.apply(params, features, method=Head.first)
    assert (first is None) == (layers == 0)
    weight = jax.random.normal(jax.random.PRNGKey(2), (3, 4, 5))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, known):
        outputs = head.apply(params, features, known)
        return (outputs * weight).sum(), outputs

    plain_grad, plain = gradient(params, None)
    known_grad, known = gradient(params, first)
    np.testing.assert_allclose(known, plain, rtol=1e-6)
    for left, right in zip(jax.tree.leaves(known_grad), jax.tree.leaves(plain_grad), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
        assert np.abs(right).max() > 0
