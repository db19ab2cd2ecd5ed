"""Lambda returns against the paper's formula, rlax and paper and pencil; discount weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dreamerjax.math.returns import discount_weights, lambda_returns

plain_and_jit = pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["plain", "jit"])
few = settings(max_examples=10)  # each is arrays of many numbers
STEPS, STARTS = 5, 3

states = hnp.arrays(np.float32, (STEPS + 1, STARTS), elements=st.floats(-100, 100, width=32, allow_subnormal=False))
probabilities = hnp.arrays(np.float32, (STEPS + 1, STARTS), elements=st.floats(0, 1, width=32, allow_subnormal=False))
fractions = st.floats(0, 1, width=32, allow_subnormal=False)
fraction_of_each_row = hnp.arrays(np.float32, (STEPS, STARTS), elements=fractions)


def of_states(reward, cont, value, lambda_):
    """The project's function on what belongs to states 0 ... H, each [H + 1, N]."""
    return lambda_returns(reward[1:], cont[1:], value[1:], value[-1], lambda_=lambda_)


def reference(reward, cont, value, lambda_):
    """R_t = r_{t+1} + c_{t+1} ((1 - lambda_{t+1}) V(s_{t+1}) + lambda_{t+1} R_{t+1}), R_H = V(s_H), in float64."""
    reward, cont, value = (np.asarray(x, np.float64) for x in (reward, cont, value))
    lambda_ = np.broadcast_to(np.asarray(lambda_, np.float64), reward[1:].shape)
    returns = np.zeros(reward.shape)
    returns[-1] = value[-1]
    for t in reversed(range(len(reward) - 1)):
        for n in range(reward.shape[1]):
            mixed = (1 - lambda_[t, n]) * value[t + 1, n] + lambda_[t, n] * returns[t + 1, n]
            returns[t, n] = reward[t + 1, n] + cont[t + 1, n] * mixed
    return returns[:-1]


rlax_of_each_start = jax.jit(jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None), out_axes=1))


def n_step_return(reward, cont, value, t, n):
    """G_t^n: n rewards after state t, then the value of state t + n."""
    total, discount = 0.0, 1.0
    for k in range(t + 1, t + n + 1):
        total = total + discount * reward[k]
        discount = discount * cont[k]
    return total + discount * value[t + n]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-3)


@plain_and_jit
def test_worked_by_hand(run):
    # The values are of states 0, 1, 2. That of state 0 must not count, or R_0 and R_1 would be other numbers.
    reward, cont, value = (
        jnp.array([[9.0], [1.0], [2.0]]),
        jnp.array([[0.9], [0.5], [0.25]]),
        jnp.array([[7.0], [20.0], [40.0]]),
    )
    # R_1 = 2 + 0.25 * 40 = 12; R_0 = 1 + 0.5 * (0.5 * 20 + 0.5 * 12) = 9
    np.testing.assert_array_equal(run(of_states)(reward, cont, value, 0.5), [[9], [12]])


@plain_and_jit
@few
@given(states, probabilities, states, fractions | fraction_of_each_row)
def test_equals_the_formula_of_the_paper(run, reward, cont, value, lambda_):
    assert_close(run(of_states)(reward, cont, value, lambda_), reference(reward, cont, value, lambda_))


@plain_and_jit
@few
@given(states, probabilities, states, fractions)
def test_equals_rlax(run, reward, cont, value, lambda_):
    expected = rlax_of_each_start(reward[1:], cont[1:], value[1:], jnp.float32(lambda_))
    assert_close(run(of_states)(reward, cont, value, lambda_), expected)


@plain_and_jit
@few
@given(states, probabilities, states, fractions)
def test_is_the_weighted_mean_of_all_n_step_returns(run, reward, cont, value, lambda_):
    returns = run(of_states)(reward, cont, value, lambda_)
    for t in range(STEPS):
        left = STEPS - t
        weights = [(1 - lambda_) * lambda_ ** (n - 1) for n in range(1, left)] + [lambda_ ** (left - 1)]
        n_steps = [n_step_return(reward, cont, value, t, n) for n in range(1, left + 1)]
        assert_close(returns[t], np.average(n_steps, axis=0, weights=weights))


@plain_and_jit
@few
@given(states, probabilities, states)
def test_lambda_zero_is_one_reward_and_the_value_of_the_next_state(run, reward, cont, value):
    assert_close(run(of_states)(reward, cont, value, 0.0), reward[1:] + cont[1:] * value[1:])


@plain_and_jit
@few
@given(states, probabilities, states)
def test_lambda_one_is_all_rewards_and_the_last_value(run, reward, cont, value):
    expected = [n_step_return(reward, cont, value, t, STEPS - t) for t in range(STEPS)]
    assert_close(run(of_states)(reward, cont, value, 1.0), np.array(expected))


@plain_and_jit
@few
@given(states, probabilities, states, fractions, st.integers(1, STEPS))
def test_nothing_counts_after_a_terminal_state(run, reward, cont, value, lambda_, terminal):
    after = (np.arange(STEPS + 1) > terminal)[:, None]
    cont = np.where((np.arange(STEPS + 1) == terminal)[:, None], 0, cont)
    returns = run(of_states)(reward, cont, value, lambda_)
    others = run(of_states)(reward + 7 * after, cont, value + 1000 * after, lambda_)
    np.testing.assert_array_equal(returns[:terminal], others[:terminal])
    assert_close(returns[terminal - 1], reward[terminal])


@plain_and_jit
def test_extra_axes_are_independent(run):
    reward, cont, value = jax.random.uniform(jax.random.key(0), (3, STEPS + 1, 2, 4))
    returns = run(of_states)(reward, cont, value, 0.95)
    assert returns.shape == (STEPS, 2, 4)
    np.testing.assert_allclose(
        returns[:, 1, 2:3], of_states(*(x[:, 1, 2:3] for x in (reward, cont, value)), 0.95), rtol=1e-6
    )


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(AssertionError):
        lambda_returns(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones((4, 2)), jnp.ones(2), lambda_=0.95)
    with pytest.raises(AssertionError):
        lambda_returns(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(()), lambda_=0.95)


@plain_and_jit
def test_discount_weights_include_the_start_and_end_at_a_terminal_state(run):
    cont = jnp.array([[0.5, 0.0], [0.25, 1.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(run(discount_weights)(cont), [[0.5, 0], [0.125, 0], [0, 0], [0, 0]])
