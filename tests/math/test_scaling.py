"""The running return percentiles and the scale that they give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dreamerjax.math.scaling import return_range, update_return_scale
from dreamerjax.types import ReturnScale

plain_and_jit = pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["plain", "jit"])
few = settings(max_examples=15)
numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
returns_of_dreams = hnp.arrays(np.float32, (5, 7), elements=numbers)

TINY = np.finfo(np.float32).tiny  # below this, float32 may be flushed to zero
update = functools.partial(update_return_scale, rate=0.01, low=0.05, high=0.95)
take_over = functools.partial(update_return_scale, rate=1.0, low=0.05, high=0.95)


def return_scale(low, high):
    return ReturnScale(low=jnp.float32(low), high=jnp.float32(high))


@plain_and_jit
def test_worked_by_hand(run):
    # Of 0 ... 20 the 5th percentile is 1 and the 95th is 19.
    scale = run(update)(return_scale(0, 0), jnp.arange(21.0))
    np.testing.assert_allclose((scale.low, scale.high), (0.01, 0.19), rtol=1e-5)
    scale = run(update)(scale, jnp.full(21, 100.0))
    np.testing.assert_allclose((scale.low, scale.high), (1.0099, 1.1881), rtol=1e-5)


@plain_and_jit
@few
@given(returns_of_dreams, numbers, numbers)
def test_moves_by_its_rate_towards_the_percentiles_of_numpy(run, returns, low, high):
    scale = run(update)(return_scale(low, high), returns)
    percentiles = np.percentile(returns.astype(np.float64), [5, 95])
    expected = 0.99 * np.array([low, high]) + 0.01 * percentiles
    size = np.abs([low, high, returns.min(), returns.max()]).max()
    np.testing.assert_allclose((scale.low, scale.high), expected, rtol=1e-5, atol=1e-6 * size + TINY)


@plain_and_jit
@few
@given(returns_of_dreams)
def test_starting_at_zero_it_is_not_debiased(run, returns):
    scale = run(update)(return_scale(0, 0), returns)
    expected = 0.01 * np.percentile(returns.astype(np.float64), [5, 95])
    np.testing.assert_allclose((scale.low, scale.high), expected, rtol=1e-5, atol=1e-7 * np.abs(returns).max() + TINY)


@plain_and_jit
@few
@given(returns_of_dreams)
def test_percentiles_do_not_depend_on_shape_or_order(run, returns):
    scale = run(take_over)(return_scale(3, 4), returns)
    other = run(take_over)(return_scale(3, 4), returns[::-1].T.reshape(-1))
    np.testing.assert_array_equal((scale.low, scale.high), (other.low, other.high))
    expected = np.percentile(returns.astype(np.float64), [5, 95])
    np.testing.assert_allclose((scale.low, scale.high), expected, rtol=1e-5, atol=1e-5 * np.abs(returns).max() + TINY)


@plain_and_jit
def test_range_table(run):
    for low, high, expected in [(0, 0, 1), (0, 0.5, 1), (-3, 5, 8), (2, 3.5, 1.5), (4, 1, 1)]:
        assert run(return_range)(return_scale(low, high)) == expected


@plain_and_jit
@few
@given(numbers, numbers)
def test_range_is_never_below_one(run, low, high):
    size = run(return_range)(return_scale(low, high))
    assert size >= 1
    np.testing.assert_allclose(size, max(1, high - low), rtol=1e-6)
