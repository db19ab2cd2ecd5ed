"""Adaptive gradient clipping, LaProp, warm-up and decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamerjax.agent.optimizer import build_optimizer, clip_per_tensor, learning_rate_shape, schedule_shape
from dreamerjax.config import OptimizerConfig

plain_and_jit = pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["plain", "jit"])
STEPS, LEARNING_RATE = 50, 0.01
CONFIG = OptimizerConfig(warmup_updates=10)


def clip_by_hand(gradient, param, config):
    """g / max(1, |g| / (clip max(floor, |p|))), with the norms of whole tensors."""
    limit = config.agc_clip * max(config.agc_floor, np.sqrt((param**2).sum()))
    return gradient / max(1, np.sqrt((gradient**2).sum()) / limit)


def train_by_hand(param, gradients, config):
    """One tensor after each update, in float64, from the formulas of AGC and LaProp."""
    param = param.astype(np.float64)
    squares, momentum, params = np.zeros(param.shape), np.zeros(param.shape), []
    for n, gradient in enumerate(gradients.astype(np.float64), start=1):
        gradient = clip_by_hand(gradient, param, config)
        squares = config.beta2 * squares + (1 - config.beta2) * gradient**2
        normalised = gradient / (np.sqrt(squares / (1 - config.beta2**n)) + config.epsilon)
        momentum = config.beta1 * momentum + (1 - config.beta1) * normalised
        warmup = min(1, (n - 1) / config.warmup_updates)
        param = param - LEARNING_RATE * warmup * momentum / (1 - config.beta1**n)
        params.append(param)
    return np.array(params)


def train(params, gradients, config=CONFIG):
    """All tensors after each update on gradients [steps, ...], one scan."""
    optimizer = build_optimizer(config)

    def step(carry, gradient):
        params, state = carry
        direction, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda x: -LEARNING_RATE * x, direction))
        return (params, state), params

    return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[1]


train_compiled = jax.jit(train, static_argnames="config")


def clip(gradients, params):
    return clip_per_tensor(0.3, 1e-3).update(gradients, optax.EmptyState(), params)[0]


@pytest.fixture(scope="module")
def task():
    """Parameters of several shapes, one starting at zero, and gradients whose sizes differ by 10^8."""
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(4, 3)), "bias": 0.01 * rng.normal(size=3), "zero": np.zeros((2, 2, 2))}
    sizes = 10.0 ** rng.uniform(-6, 2, size=STEPS)
    gradients = {name: rng.normal(size=(STEPS, *param.shape)) for name, param in params.items()}
    gradients = {name: x * sizes.reshape(-1, *[1] * (x.ndim - 1)) for name, x in gradients.items()}
    return jax.tree.map(np.float32, (params, gradients))


@plain_and_jit
def test_50_updates_against_a_plain_implementation(run, task):
    params, gradients = task
    trained = run(train)(params, gradients)
    for name in params:
        expected = train_by_hand(params[name], gradients[name], CONFIG)
        moved = np.abs(expected[-1] - params[name]).max()
        assert moved > 0.05  # or there would be nothing to compare
        # 1 - 0.999^n in float32 is exact to 1e-4 at most.
        np.testing.assert_allclose(trained[name], expected, rtol=0, atol=1e-4 * moved)


@plain_and_jit
def test_clipping_table(run):
    params = {"large": jnp.array([[3.0], [4.0]]), "same": jnp.array([[3.0], [4.0]]), "zero": jnp.zeros(2)}
    gradients = {
        "large": jnp.array([[0.0], [3.0]]),
        "same": jnp.array([[0.0], [1.25]]),
        "zero": jnp.array([3e-3, 4e-3]),
    }
    # The limits are 0.3 * 5 = 1.5 for each of the first two, apart, and 0.3 * 0.001 for the third.
    clipped = run(clip)(gradients, params)
    np.testing.assert_allclose(clipped["large"], [[0], [1.5]], rtol=1e-6)
    np.testing.assert_array_equal(clipped["same"], gradients["same"])
    np.testing.assert_allclose(clipped["zero"], [1.8e-4, 2.4e-4], rtol=1e-6)


@plain_and_jit
def test_clipping_measures_whole_tensors_not_units(run):
    param = jnp.array([[3.0, 0.0], [4.0, 0.0]])
    gradient = jnp.array([[0.0, 0.6], [0.0, 0.8]])
    np.testing.assert_array_equal(run(clip)(gradient, param), gradient)
    # Unit by unit, the second column would be clipped to 0.3 * 0.001: its own parameters are zero.
    by_unit, _ = optax.adaptive_grad_clip(0.3, 1e-3).update(gradient, optax.EmptyState(), param)
    np.testing.assert_allclose(jnp.linalg.norm(by_unit), 3e-4, rtol=1e-5)


def test_clipping_comes_before_the_normaliser(task):
    # With AGC all but off, the same gradients must lead elsewhere.
    params, gradients = task
    unclipped = train_compiled(params, gradients, OptimizerConfig(warmup_updates=10, agc_clip=1e30))
    clipped = train_compiled(params, gradients)
    assert np.abs(unclipped["kernel"][-1] - clipped["kernel"][-1]).max() > 0.01


@pytest.mark.parametrize("warmup_updates", [1, 10, 1000])
def test_the_first_update_changes_nothing_and_the_second_does(task, warmup_updates):
    params, gradients = task
    trained = train(params, jax.tree.map(lambda x: x[:2], gradients), OptimizerConfig(warmup_updates=warmup_updates))
    for name, param in params.items():
        np.testing.assert_array_equal(trained[name][0], param)
        assert (trained[name][1] != param).all()


def test_without_warmup_the_first_update_has_the_full_rate(task):
    # The first direction of LaProp is the sign of the gradient.
    params, gradients = task
    trained = train(params, jax.tree.map(lambda x: x[:1], gradients), OptimizerConfig(warmup_updates=0))
    for name, param in params.items():
        expected = param - LEARNING_RATE * np.sign(gradients[name][0])
        np.testing.assert_allclose(trained[name][0], expected, rtol=1e-4, atol=1e-6)


@plain_and_jit
def test_learning_rate_table(run):
    constant = OptimizerConfig(warmup_updates=10)
    cosine = OptimizerConfig(warmup_updates=10, schedule="cosine", final_fraction=0.1, decay_updates=100)
    table = [(0, 0, 0), (1, 0.1, 0.1), (5, 0.5, 0.5), (10, 1, 1), (60, 1, 0.55), (110, 1, 0.1), (9999, 1, 0.1)]
    for step, expected_constant, expected_cosine in table:
        for config, expected in ((constant, expected_constant), (cosine, expected_cosine)):
            factor = run(lambda step, config=config: learning_rate_shape(step, config))(jnp.int32(step))
            np.testing.assert_allclose(factor, expected, rtol=1e-5)


@plain_and_jit
def test_schedule_table(run):
    cosine = run(lambda step: schedule_shape(step, "cosine", final_fraction=0.2, decay_updates=8))
    constant = run(lambda step: schedule_shape(step, "constant", final_fraction=0.2, decay_updates=8))
    for step, expected in [(0, 1), (2, 0.6 + 0.4 * 0.5**0.5), (4, 0.6), (6, 0.6 - 0.4 * 0.5**0.5), (8, 0.2), (80, 0.2)]:
        np.testing.assert_allclose(cosine(jnp.int32(step)), expected, rtol=1e-5)
        assert constant(jnp.int32(step)) == 1


# Squares of the last five leave the range of float32 below or above; 1e-45 is its smallest number.
@pytest.mark.parametrize("size", [0.0, 1.0, 1e-15, 1e-20, 1e-45, 1e18, 1e38])
def test_zero_tiny_and_huge_gradients_stay_finite(task, size):
    params, gradients = task
    # The size comes amid zeros and ordinary gradients, and alone.
    of_size = jax.tree.map(lambda x: np.float32(size) * np.sign(x), gradients)
    amid = jax.tree.map(
        lambda x, ordinary: np.concatenate([x[:9], 0 * x[:9], ordinary[:9], x[:9], ordinary[:14]]), of_size, gradients
    )
    for trained in (train_compiled(params, of_size), train_compiled(params, amid)):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(trained))
    if size == 0:
        jax.tree.map(
            lambda x, start: np.testing.assert_array_equal(x[-1], start), train_compiled(params, of_size), params
        )
