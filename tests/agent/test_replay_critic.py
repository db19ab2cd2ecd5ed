"""The critic's loss on replayed rows, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import init_knobs
from dreamerjax.agent.predictions import predict_value
from dreamerjax.agent.replay_critic import replay_critic_loss, replay_returns
from dreamerjax.math.transforms import symexp_bins
from dreamerjax.types import Batch
from tests.agent.small import CONFIG, DISCRETE, KEY, A, column, largest, random_params

T, B = 4, 3

# Three sequences of 4 rows, side by side: one goes on, one is terminal in row 2, one is cut there by a time limit.
IS_LAST = jnp.array([[0, 0, 0], [0, 0, 0], [0, 1, 1], [0, 0, 0]], bool)
IS_TERMINAL = jnp.array([[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
REWARD = jnp.broadcast_to(column(9, 1, 2, 3), (T, B))
BOOTSTRAP = jnp.broadcast_to(column(9, 10, 20, 30), (T, B))


def test_replay_returns_worked_out_by_hand():
    # Goes on:  R_2 = 3 + 0.5 * 30 = 18,   R_1 = 2 + 0.5 (20 + 18) / 2 = 11.5,   R_0 = 1 + 0.5 (10 + 11.5) / 2 = 6.375
    # Terminal: R_1 = 2,                   R_0 = 1 + 0.5 (10 + 2) / 2 = 4
    # Cut:      R_1 = 2 + 0.5 * 20 = 12,   R_0 = 1 + 0.5 (10 + 12) / 2 = 6.5
    returns = replay_returns(
        REWARD, IS_LAST, IS_TERMINAL, BOOTSTRAP, discount=jnp.array(0.5), return_lambda=jnp.array(0.5)
    )
    np.testing.assert_allclose(returns, [[6.375, 4, 6.5], [11.5, 2, 12], [18, 18, 18]])


@pytest.fixture(scope="module")
def replay_gradients():
    """Loss [T-1, B] and the gradient of its sum to everything that goes in."""
    features = jax.random.normal(KEY, (T, B, 32))
    batch = Batch(
        obs={},
        prev_action=jnp.zeros((T, B, A)),
        reward=REWARD,
        is_first=jnp.zeros((T, B), bool),
        is_last=IS_LAST,
        is_terminal=IS_TERMINAL,
    )
    knobs = init_knobs(CONFIG)

    def loss(critic, features, slow_critic, bootstrap, reward, knobs):
        rows = batch.replace(reward=reward)
        each = replay_critic_loss(DISCRETE, critic, slow_critic, features, rows, bootstrap, knobs)
        return each.sum(), each

    critic, slow_critic = (random_params(DISCRETE, seed).critic for seed in (0, 1))
    gradient = jit(jax.grad(loss, argnums=range(6), has_aux=True))
    gradients, each = gradient(critic, features, slow_critic, BOOTSTRAP, REWARD, knobs)
    names = ("critic", "features", "slow_critic", "bootstrap", "reward", "knobs")
    return each, dict(zip(names, gradients, strict=True))


def test_the_replay_loss_reaches_the_critic_and_the_features_but_no_target(replay_gradients):
    gradients = replay_gradients[1]
    assert largest(gradients["critic"]) > 0
    for constant in ("slow_critic", "bootstrap", "reward", "knobs"):
        assert largest(gradients[constant]) == 0, constant


def test_the_replay_loss_skips_rows_without_a_next_row_of_their_episode(replay_gradients):
    each, gradients = replay_gradients
    assert each.shape == (T - 1, B)
    counts = ~np.asarray(IS_LAST)
    counts[-1] = False  # the window ends
    np.testing.assert_array_equal(np.asarray(each) > 0, counts[:-1])
    np.testing.assert_array_equal(np.abs(gradients["features"]).max(-1) > 0, counts)


def test_the_replay_loss_has_both_terms(replay_gradients):
    """Cross entropy with the returns and with the slow critic's mean, each by linear interpolation of log probs."""
    critic, slow_critic = (random_params(DISCRETE, seed).critic for seed in (0, 1))
    features = jax.random.normal(KEY, (T, B, 32))
    log_probs = np.asarray(jax.nn.log_softmax(DISCRETE.networks.critic.apply(critic, features)), np.float64)
    slow_value = np.asarray(predict_value(DISCRETE, slow_critic, features))
    knobs, bins = init_knobs(CONFIG), np.asarray(symexp_bins(31), np.float64)
    returns = replay_returns(
        REWARD, IS_LAST, IS_TERMINAL, BOOTSTRAP, discount=knobs.discount, return_lambda=knobs.return_lambda
    )
    expected = np.zeros((T - 1, B))
    for t, b in np.argwhere(~np.asarray(IS_LAST)[:-1]):
        targets = (returns[t, b], slow_value[t, b])
        expected[t, b] = -sum(np.interp(target, bins, log_probs[t, b]) for target in targets)
    np.testing.assert_allclose(replay_gradients[0], expected, rtol=1e-4)
