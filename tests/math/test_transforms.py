"""Symlog, and two-hot regression over symexp bins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dreamerjax.math.transforms import symexp, symexp_bins, symlog, two_hot, two_hot_cross_entropy, two_hot_mean

plain_and_jit = pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["plain", "jit"])
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15)  # each is an array of many numbers


def numbers(low=None, high=None, **options):
    return hnp.arrays(np.float32, 12, elements=st.floats(low, high, width=32, allow_nan=False, **options))


BINS = symexp_bins(255)
LARGEST = float(BINS[-1])


@plain_and_jit
def test_symlog_table(run):
    x = np.float32([0, 1, np.e - 1, np.e**2 - 1, 1 - np.e, 1e-6])
    np.testing.assert_allclose(run(symlog)(x), [0, np.log(2), 1, 2, -1, 1e-6], rtol=1e-6)


@plain_and_jit
def test_symexp_table(run):
    x = np.float32([0, np.log(2), 1, -2, 1e-6])
    np.testing.assert_allclose(run(symexp)(x), [0, 1, np.e - 1, 1 - np.e**2, 1e-6], rtol=1e-6)


@plain_and_jit
@few
@given(numbers())
def test_symlog_and_symexp_are_odd(run, x):
    np.testing.assert_array_equal(run(symlog)(-x), -run(symlog)(x))
    np.testing.assert_array_equal(run(symexp)(-x), -run(symexp)(x))


@plain_and_jit
@few
@given(numbers(-(2.0**126), 2.0**126))
def test_symexp_inverts_symlog(run, x):
    # The logarithm of 2^126 is 87: its rounding error is that many times as large in relative terms.
    np.testing.assert_allclose(run(symexp)(run(symlog)(x)), x, rtol=5e-5, atol=1e-37)


@plain_and_jit
@few
@given(numbers(-88, 88))
def test_symlog_inverts_symexp(run, x):
    np.testing.assert_allclose(run(symlog)(run(symexp)(x)), x, rtol=2e-6, atol=1e-37)


def test_bins_are_symexp_of_a_line_and_exactly_symmetric():
    assert BINS.shape == (255,)
    assert BINS[127] == 0
    np.testing.assert_array_equal(BINS, -BINS[::-1])
    line = np.linspace(-20, 20, 255)
    np.testing.assert_allclose(BINS, np.sign(line) * np.expm1(np.abs(line)), rtol=1e-5)
    np.testing.assert_allclose(symexp_bins(5), [-np.expm1(20), -np.expm1(10), 0, np.expm1(10), np.expm1(20)], rtol=1e-6)


@pytest.mark.parametrize("size", [-1, 0, 1, 2, 254])
def test_bins_must_be_odd_in_number(size):
    with pytest.raises(ValueError, match=f"number of bins is {size}"):
        symexp_bins(size)


@plain_and_jit
def test_two_hot_table(run):
    bins = jnp.array([-1.0, 0.0, 2.0])
    x = jnp.array([-0.25, 0.0, 0.5, 2.0, -5.0, jnp.inf])
    weights = [[0.25, 0.75, 0], [0, 1, 0], [0, 0.75, 0.25], [0, 0, 1], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(run(two_hot)(x, bins), weights)


@plain_and_jit
@few
@given(numbers())
@example(np.float32([0, -0.0, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-38, -1e-38, 4.8516e8, -4.8516e8, 1e-45, 0.17]))
def test_two_hot_is_a_distribution_on_two_neighbours_whose_mean_is_the_number(run, x):
    weights = np.asarray(run(two_hot)(jnp.asarray(x), BINS), np.float64)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    for row in weights:
        used = np.flatnonzero(row)
        assert len(used) in (1, 2)
        assert used[-1] - used[0] <= 1
    # Neighbouring bins are 17% apart, or 0.17 around zero, where a weight near 1 rounds to that accuracy.
    np.testing.assert_allclose(weights @ np.asarray(BINS), np.clip(x, -LARGEST, LARGEST), rtol=5e-7, atol=1e-7)


@plain_and_jit
def test_two_hot_is_exact_at_the_bins(run):
    np.testing.assert_array_equal(run(two_hot)(BINS, BINS), np.eye(255))


@plain_and_jit
def test_two_hot_mean_table(run):
    bins = jnp.array([-4.0, -2.0, 0.0, 2.0, 4.0])
    probs = jnp.array([[0.25, 0.25, 0.5, 0, 0], [0.125, 0.25, 0, 0.125, 0.5], [0, 0, 0, 0, 1]])
    np.testing.assert_allclose(run(two_hot_mean)(jnp.log(probs), bins), [-1.5, 1.25, 4], rtol=1e-6)


@plain_and_jit
@pytest.mark.parametrize("size", [3, 255])
@settings(max_examples=5)
@given(numbers(allow_infinity=False))
def test_uniform_logits_have_mean_exactly_zero(run, size, logit):
    logits = np.repeat(logit[:, None], size, axis=1)
    np.testing.assert_array_equal(run(two_hot_mean)(logits, symexp_bins(size)), 0)


@plain_and_jit
@few
@given(seeds)
def test_two_hot_mean_is_the_expected_bin(run, seed):
    logits = np.random.default_rng(seed).normal(size=(12, 255), scale=3).astype(np.float32)
    probs = np.exp(logits.astype(np.float64))
    terms = probs / probs.sum(-1, keepdims=True) * np.asarray(BINS, np.float64)
    scale = np.abs(terms).sum(-1)
    np.testing.assert_allclose(run(two_hot_mean)(logits, BINS) / scale, terms.sum(-1) / scale, rtol=0, atol=3e-6)


@plain_and_jit
@few
@given(numbers())
def test_two_hot_mean_inverts_two_hot(run, x):
    logits = jnp.log(run(two_hot)(jnp.asarray(x), BINS))
    np.testing.assert_allclose(run(two_hot_mean)(logits, BINS), np.clip(x, -LARGEST, LARGEST), rtol=1e-6, atol=1e-6)


def cross_entropy_by_definition(logits, target, bins):
    return -(two_hot(target, bins) * jax.nn.log_softmax(logits)).sum(-1)


@plain_and_jit
def test_cross_entropy_table(run):
    bins = jnp.array([-1.0, 0.0, 2.0])
    logits = jnp.log(jnp.array([[0.2, 0.5, 0.3]] * 3))
    target = jnp.array([0.5, -9.0, 0.0])
    expected = [-0.75 * np.log(0.5) - 0.25 * np.log(0.3), -np.log(0.2), -np.log(0.5)]
    np.testing.assert_allclose(run(two_hot_cross_entropy)(logits, target, bins), expected, rtol=1e-6)


@plain_and_jit
@settings(max_examples=4)
@given(numbers(), seeds)
def test_cross_entropy_equals_its_definition_in_value_and_gradient(run, x, seed):
    logits = jnp.asarray(np.random.default_rng(seed).normal(size=(12, 255), scale=3), jnp.float32)
    target = jnp.asarray(x)
    value, gradient = run(cross_entropy_and_gradient)(logits, target, BINS)
    expected, expected_gradient = run(definition_and_gradient)(logits, target, BINS)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - two_hot(target, BINS), atol=1e-6)


# Each row of logits has its own target: one gradient for each.
cross_entropy_and_gradient = jax.vmap(jax.value_and_grad(two_hot_cross_entropy), (0, 0, None))
definition_and_gradient = jax.vmap(jax.value_and_grad(cross_entropy_by_definition), (0, 0, None))
