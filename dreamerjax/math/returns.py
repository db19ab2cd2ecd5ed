"""Lambda returns and discount weights."""

import chex
import jax
import jax.numpy as jnp

from dreamerjax.types import Array


def lambda_returns(reward: Array, discount: Array, value: Array, bootstrap: Array, *, lambda_: Array | float) -> Array:
    """Lambda returns by the backward recursion (eq. 7).

    R_t = r_{t+1} + c_{t+1} ((1 - lambda) V(s_{t+1}) + lambda R_{t+1}),  R_H = bootstrap

    The arrays of the future come already aligned: index t of each holds what belongs to t + 1, so
    a caller with states 0 ... H passes `reward[1:], cont[1:], value[1:], value[-1]`.

    Args:
        reward: r_{t+1} [H, ...], of arriving in the next state.
        discount: c_{t+1} [H, ...], 0 where the next state is terminal.
        value: V(s_{t+1}) [H, ...], of the *next* state.
        bootstrap: R_H [...].
        lambda_: scalar or [H, ...]; 0 trusts the value of the next state, 1 only the last.

    Returns:
        R_t [H, ...].
    """
    chex.assert_equal_shape([reward, discount, value])
    chex.assert_equal_shape([reward[0], bootstrap])
    lambda_ = jnp.broadcast_to(lambda_, reward.shape)

    def backward(following: Array, row: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        reward, discount, value, lambda_ = row
        returns = reward + discount * ((1 - lambda_) * value + lambda_ * following)
        return returns, returns

    return jax.lax.scan(backward, bootstrap, (reward, discount, value, lambda_), reverse=True)[1]


def discount_weights(cont: Array) -> Array:
    """Probability [H, ...] that a dream still goes on in each state: cumprod of cont [H, ...], the start's included."""
    return jnp.cumprod(cont, 0)
