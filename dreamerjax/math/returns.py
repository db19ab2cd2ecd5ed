"""Lambda returns and discount weights."""

import chex
import jax
import jax.numpy as jnp

from dreamerjax.types import Array


def lambda_returns(reward: Array, cont: Array, value: Array, bootstrap: Array, *, lambda_: Array | float) -> Array:
    """Lambda returns by the backward recursion (section "Critic learning").

    R_t = r_{t+1} + c_{t+1} ((1 - lambda) V(s_{t+1}) + lambda R_{t+1}),  R_H = bootstrap

    The arrays of the future come already aligned: index t of each holds what belongs to t + 1, so
    a caller with states 0 ... H passes `reward[1:], cont[1:], value[1:], value[-1]`.

    Args:
        reward: r_{t+1} [H, ...], of arriving in the next state.
        cont: c_{t+1} [H, ...], discount times the probability that the episode goes on; 0 if the next state ends it.
        value: V(s_{t+1}) [H, ...], of the *next* state.
        bootstrap: R_H [...].
        lambda_: scalar or [H, ...]; 0 trusts the value of the next state, 1 only the last.

    Returns:
        R_t [H, ...].
    """
    chex.assert_equal_shape([reward, cont, value])
    chex.assert_equal_shape([reward[0], bootstrap])
    lambda_ = jnp.broadcast_to(lambda_, reward.shape)

    def backward(following: Array, row: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        reward, cont, value, lambda_ = row
        returns = reward + cont * ((1 - lambda_) * value + lambda_ * following)
        return returns, returns

    return jax.lax.scan(backward, bootstrap, (reward, cont, value, lambda_), reverse=True)[1]


def discount_weights(cont: Array) -> Array:
    """Probability [H, ...] that a dream still goes on in each state: cumprod of cont [H, ...], the start's included."""
    return jnp.cumprod(cont, 0)
