"""The recurrence: what resets it, how its latents are sampled, and where its gradients go."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.nets.networks import WorldModel, build_networks, init_params
from dreamerjax.nets.rssm import initial_latent, latent_features, latent_noise, merge_time
from dreamerjax.types import ActionSpec, LatentState, ObsSpec, Spaces
from tests.tiny import MODEL, random_like

SPACES = Spaces(obs=(ObsSpec("state", (3,)),), actions=(ActionSpec("continuous", 2),))
NETWORKS = build_networks(MODEL, SPACES, jnp.dtype(jnp.float32))
UNIMIX = MODEL.unimix


def observe_step(params, state, prev_action, embed, is_first, key):
    noise = latent_noise(key, *is_first.shape, config=MODEL)
    return NETWORKS.world_model.apply(
        params, state, prev_action, embed, is_first, noise, method=WorldModel.observe_step
    )


def imagine_step(params, state, action, key):
    noise = latent_noise(key, action.shape[0], config=MODEL)
    return NETWORKS.world_model.apply(params, state, action, noise, method=WorldModel.imagine_step)


def prior(params, deter):
    return NETWORKS.world_model.apply(params, deter, method=WorldModel.prior)


observe_step_jit, imagine_step_jit, prior_jit = jit(observe_step), jit(imagine_step), jit(prior)


@pytest.fixture(scope="module")
def params():
    """Random parameters, without the structure of the initial ones: no bias is zero."""
    shapes = jax.eval_shape(lambda key: init_params(NETWORKS, key), jax.random.PRNGKey(0)).world_model
    return random_like(shapes, scale=0.8)


def empty_state(size: int) -> LatentState:
    return initial_latent(size, MODEL, jnp.dtype(jnp.float32))


def random_state(seed: int, size: int) -> LatentState:
    rng, empty = np.random.default_rng(seed), empty_state(size)
    stoch = np.eye(4)[rng.integers(4, size=(size, 4))]
    return LatentState(jnp.asarray(rng.normal(size=empty.deter.shape), jnp.float32), jnp.asarray(stoch, jnp.float32))


def deter_of(state: LatentState) -> np.ndarray:
    """[..., D], in the order in which the heads read it."""
    return np.asarray(latent_features(state))[..., : MODEL.deter]


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.PRNGKey(seed), shape)


def test_the_initial_state_is_zero():
    np.testing.assert_array_equal(latent_features(empty_state(2)), np.zeros((2, 32)))


def test_states_of_several_steps_merge_into_one_batch_with_the_step_first():
    steps = [random_state(seed, 3) for seed in range(2)]
    merged = merge_time(jax.tree.map(lambda *leaves: jnp.stack(leaves), *steps))
    np.testing.assert_array_equal(latent_features(merged), np.concatenate([latent_features(state) for state in steps]))


def test_after_is_first_the_past_makes_no_difference(params):
    """Two sequences differ in everything before row 2, and in the action that led there."""
    is_first = jnp.array([[True, True], [False, False], [True, False], [False, False]])  # [T, B]
    keys = jax.random.split(jax.random.PRNGKey(1), 4)
    shared_actions, shared_embeds = normal(2, 4, 2, 2), normal(3, 4, 2, 8)

    def run(seed: int) -> list[tuple[jax.Array, jax.Array]]:
        state, rows = random_state(seed, 2), []
        for t in range(4):
            prev_action = shared_actions[t] if t > 2 else 0.5 * normal(seed + t, 2, 2)
            embed = shared_embeds[t] if t >= 2 else normal(seed + 10 + t, 2, 8)
            state, logits = observe_step_jit(params, state, prev_action, embed, is_first[t], keys[t])
            rows.append((latent_features(state), logits))
        return rows

    one, other = run(100), run(200)
    for t in (2, 3):
        for left, right in zip(one[t], other[t], strict=True):
            np.testing.assert_array_equal(left[0], right[0])  # column 0 started anew in row 2
            assert np.abs(left[1] - right[1]).max() > 1e-2  # column 1 did not


@pytest.mark.parametrize("part", ["deter", "stoch", "prev_action"])
def test_each_part_of_the_past_counts_unless_is_first(params, part):
    is_first, embed, key = jnp.array([True, False]), normal(3, 2, 8), jax.random.PRNGKey(1)

    def deter(seed: int) -> np.ndarray:
        parts = {"deter": random_state(1, 2).deter, "stoch": random_state(1, 2).stoch, "prev_action": normal(1, 2, 2)}
        others = {"deter": random_state(seed, 2).deter, "stoch": random_state(seed, 2).stoch}
        parts[part] = (others | {"prev_action": normal(seed, 2, 2)})[part]
        state = LatentState(parts["deter"], parts["stoch"])
        return deter_of(observe_step_jit(params, state, parts["prev_action"], embed, is_first, key)[0])

    np.testing.assert_array_equal(deter(50)[0], deter(60)[0])
    assert np.abs(deter(50)[1] - deter(60)[1]).max() > 1e-3


def test_without_memory_every_step_is_a_first_one_but_dreams_go_on(params):
    networks = build_networks(dataclasses.replace(MODEL, memory=False), SPACES, jnp.dtype(jnp.float32))
    state, action, embed = random_state(0, 2), normal(1, 2, 2), normal(2, 2, 8)
    noise = latent_noise(jax.random.PRNGKey(0), 2, config=MODEL)

    @jit
    def forgetful(state, is_first):
        inputs = (state, action, embed, is_first, noise)
        return networks.world_model.apply(params, *inputs, method=WorldModel.observe_step)[0]

    first, _ = observe_step_jit(params, state, action, embed, jnp.ones(2, bool), jax.random.PRNGKey(0))
    np.testing.assert_allclose(deter_of(forgetful(state, jnp.zeros(2, bool))), deter_of(first), rtol=1e-4, atol=1e-5)
    dreams = [
        jit(lambda nets=nets: nets.world_model.apply(params, state, action, noise, method=WorldModel.imagine_step))()
        for nets in (networks, NETWORKS)
    ]
    np.testing.assert_array_equal(*(deter_of(dream) for dream in dreams))


def test_is_first_equals_starting_from_nothing(params):
    embed, key = normal(3, 2, 8), jax.random.PRNGKey(1)
    reset = observe_step_jit(params, random_state(1, 2), normal(4, 2, 2), embed, jnp.ones(2, bool), key)
    fresh = observe_step_jit(params, empty_state(2), jnp.zeros((2, 2)), embed, jnp.zeros(2, bool), key)
    for left, right in zip(jax.tree.leaves(reset), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_array_equal(left, right)


def test_no_gradient_reaches_the_past_through_is_first(params):
    is_first, embed, key = jnp.array([True, False]), normal(3, 2, 8), jax.random.PRNGKey(1)

    @jit
    @jax.grad
    def gradient(past):
        state, logits = observe_step(params, *past, embed, is_first, key)
        return (latent_features(state) * normal(7, 2, 32)).sum() + (logits * normal(8, 2, 4, 4)).sum()

    of_state, of_action = gradient((random_state(1, 2), 0.5 * normal(4, 2, 2)))
    for leaf in (deter_of(of_state), of_state.stoch, of_action):
        np.testing.assert_array_equal(leaf[0], np.zeros_like(leaf[0]))
        assert np.abs(leaf[1]).max() > 0


def test_every_class_is_sampled_with_at_least_its_share_of_the_uniform_mixture(params):
    """Logits that softmax would make certain: each other class still has the probability 0.01 / 4."""
    size = 30_000
    certain = jax.tree.map(lambda x: 1000 * x, params)
    state = imagine_step_jit(certain, empty_state(size), jnp.zeros((size, 2)), jax.random.PRNGKey(0))
    stoch = np.asarray(state.stoch)
    np.testing.assert_array_equal(np.sort(stoch, -1), np.broadcast_to([0.0, 0.0, 0.0, 1.0], stoch.shape))
    best = np.asarray(prior_jit(certain, state.deter)[0]).argmax(-1)
    frequency = stoch.mean(0)
    rare = UNIMIX / 4
    for group in range(4):
        others = np.delete(frequency[group], best[group])
        np.testing.assert_allclose(others, rare, atol=5 * np.sqrt(rare / size))
        np.testing.assert_allclose(frequency[group, best[group]], 1 - 3 * rare, atol=5 * np.sqrt(3 * rare / size))


def test_samples_follow_the_prior(params):
    size = 30_000
    state = imagine_step_jit(params, empty_state(size), jnp.ones((size, 2)), jax.random.PRNGKey(0))
    softmax = jax.nn.softmax(prior_jit(params, state.deter)[0])
    expected = (1 - UNIMIX) * np.asarray(softmax) + UNIMIX / 4
    np.testing.assert_allclose(np.asarray(state.stoch).mean(0), expected, atol=5 * np.sqrt(0.25 / size))


def test_the_gradient_of_a_sample_is_that_of_its_probabilities(params):
    """Straight-through: d sample / d parameters = d probs / d parameters, for the prior and for the posterior."""
    state, action, embed = random_state(2, 3), 0.5 * normal(4, 3, 2), normal(3, 3, 8)
    key, is_first, weight = jax.random.PRNGKey(1), jnp.zeros(3, bool), normal(9, 3, 4, 4)

    def probs(logits):
        return (1 - UNIMIX) * jax.nn.softmax(logits) + UNIMIX / 4

    def of_samples(params):
        imagined = imagine_step(params, state, action, key).stoch
        observed = observe_step(params, state, action, embed, is_first, key)[0].stoch
        return ((imagined + 2 * observed) * weight).sum()

    def of_probs(params):
        imagined = probs(prior(params, imagine_step(params, state, action, key).deter))
        observed = probs(observe_step(params, state, action, embed, is_first, key)[1])
        return ((imagined + 2 * observed) * weight).sum()

    actual, expected = jit(jax.grad(of_samples))(params), jit(jax.grad(of_probs))(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(actual)) > 0.1
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6)


def test_large_actions_saturate_at_one_and_keep_a_gradient(params):
    """a / max(1, |a|), where the divisor is a constant: at a = 5 the gradient is a fifth of that at 1, not 0."""
    state, key = random_state(2, 1), jax.random.PRNGKey(0)

    def step(action):
        return latent_features(imagine_step(params, state, action[None], key))[0, : MODEL.deter]

    deter, jacobian = jit(step), jit(jax.jacobian(step))
    inside, outside = jnp.array([0.5, 1.0]), jnp.array([0.5, 5.0])
    np.testing.assert_allclose(deter(outside), deter(inside), rtol=1e-6)
    np.testing.assert_allclose(deter(jnp.array([-7.0, 300.0])), deter(jnp.array([-1.0, 1.0])), rtol=1e-6)
    assert np.abs(deter(inside) - deter(jnp.array([0.5, 0.5]))).max() > 1e-3  # inside the box actions count as they are

    at_one, at_five = np.asarray(jacobian(inside)), np.asarray(jacobian(outside))
    assert np.abs(at_one[:, 1]).max() > 1e-3
    np.testing.assert_allclose(at_five[:, 1], at_one[:, 1] / 5, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(at_five[:, 0], at_one[:, 0], rtol=1e-4, atol=1e-7)
