"""Categorical latents, their balanced KL with free bits, and the actor's distributions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dreamerjax.math.distributions import (
    balanced_kl,
    bernoulli_cross_entropy,
    categorical_entropy,
    categorical_kl,
    free_nats_floor,
    mode_one_hot,
    normal_entropy,
    normal_log_prob,
    normal_mean_std,
    sample_one_hot,
    straight_through,
    unimix,
)

plain_and_jit = pytest.mark.parametrize("run", [lambda function: function, jax.jit], ids=["plain", "jit"])
few = settings(max_examples=15)  # each is an array of many numbers
GRADIENTS = ("clip", "straight_through")
LATENT = (3, 2, 4)  # elements, groups, classes
latent_logits = hnp.arrays(np.float32, LATENT, elements=st.floats(-30, 30, width=32, allow_subnormal=False))


def float64_log_probs(logits, share):
    probs = scipy.special.softmax(np.asarray(logits, np.float64), -1)
    return np.log((1 - share) * probs + share / logits.shape[-1])


def float64_kl(post_logits, prior_logits, share):
    """KL [elements], summed over groups and classes."""
    post, prior = float64_log_probs(post_logits, share), float64_log_probs(prior_logits, share)
    return (np.exp(post) * (post - prior)).sum((-1, -2))


# Static arguments are bound once, so that jit compiles once.
UNIMIX = {share: functools.partial(unimix, share=share) for share in (0.0, 0.01, 0.3, 1.0)}
FLOOR = {gradient: functools.partial(free_nats_floor, free_nats=1.0, gradient=gradient) for gradient in GRADIENTS}
BALANCED_KL = {
    gradient: functools.partial(balanced_kl, unimix_share=0.01, free_nats=1.0, gradient=gradient)
    for gradient in GRADIENTS
}


@plain_and_jit
@pytest.mark.parametrize("share", UNIMIX)
@few
@given(latent_logits)
def test_unimix_is_a_distribution_within_its_bounds(run, share, logits):
    log_probs = np.asarray(run(UNIMIX[share])(logits), np.float64)
    probs = np.exp(log_probs)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert probs.min() >= share / 4 * (1 - 1e-5)
    assert probs.max() <= (1 - share + share / 4) * (1 + 1e-5)
    np.testing.assert_allclose(log_probs, float64_log_probs(logits, share), rtol=1e-5, atol=1e-5)


@plain_and_jit
def test_unimix_table(run):
    logits = jnp.array([[1e4, 0, 0, 0], [3, 3, 3, 3], [-3e38, 3e38, 0, 0]])
    probs = [[0.9925, 0.0025, 0.0025, 0.0025], [0.25] * 4, [0.0025, 0.9925, 0.0025, 0.0025]]
    np.testing.assert_allclose(np.exp(run(UNIMIX[0.01])(logits)), probs, rtol=1e-6)


def draw(log_probs, key):
    return sample_one_hot(jnp.exp(log_probs), jax.random.uniform(key, log_probs.shape[:-1]))


@plain_and_jit
@pytest.mark.parametrize("probs", [(0.5, 0.25, 0.2, 0.05), (0.25,) * 4, (0.0025, 0.9925, 0.0025, 0.0025)], ids=str)
def test_samples_match_their_probabilities(run, probs):
    count = 20_000
    log_probs = jnp.broadcast_to(jnp.log(jnp.array(probs)), (count, 4))
    samples = np.asarray(run(draw)(log_probs, jax.random.key(0)))
    assert set(np.unique(samples)) == {0, 1}
    np.testing.assert_array_equal(samples.sum(-1), 1)
    assert scipy.stats.chisquare(samples.sum(0), count * np.array(probs)).pvalue > 0.001


@plain_and_jit
def test_groups_and_keys_are_drawn_independently(run):
    log_probs = jnp.log(jnp.full((5000, 2, 3), 1 / 3))
    first, second = (run(draw)(log_probs, jax.random.key(seed)).argmax(-1) for seed in (0, 1))
    for left, right in ((first[:, 0], first[:, 1]), (first[:, 0], second[:, 0])):
        counts = np.zeros((3, 3))
        np.add.at(counts, (np.asarray(left), np.asarray(right)), 1)
        assert scipy.stats.chi2_contingency(counts).pvalue > 0.001


@plain_and_jit
def test_a_class_without_probability_is_never_drawn(run):
    log_probs = jnp.log(jnp.broadcast_to(jnp.array([0.0, 0.6, 0.0, 0.4, 0.0]), (20_000, 5)))
    counts = run(draw)(log_probs, jax.random.key(0)).sum(0)
    assert (counts[jnp.array([0, 2, 4])] == 0).all()


def test_the_same_key_draws_the_same_sample():
    log_probs = jnp.log(jnp.full((5000, 2, 3), 1 / 3))
    samples = [run(draw)(log_probs, jax.random.key(2)) for run in (lambda f: f, lambda f: f, jax.jit)]
    np.testing.assert_array_equal(samples[0], samples[1])
    np.testing.assert_array_equal(samples[0], samples[2])


def sampled(logits, direction):
    log_probs = UNIMIX[0.01](logits)
    sample = draw(log_probs, jax.random.key(0))
    through = straight_through(sample, jnp.exp(log_probs))
    return (through * direction).sum(), (sample, through)


def expected(logits, direction):
    return (jnp.exp(UNIMIX[0.01](logits)) * direction).sum()


sampled_gradient, expected_gradient = jax.grad(sampled, has_aux=True), jax.grad(expected)


@plain_and_jit
@settings(max_examples=5)
@given(latent_logits)
def test_straight_through_is_the_sample_in_value_and_the_probabilities_in_gradient(run, logits):
    direction = jnp.arange(logits.size, dtype=jnp.float32).reshape(logits.shape)
    gradient, (sample, through) = run(sampled_gradient)(logits, direction)
    np.testing.assert_array_equal(through, sample)
    np.testing.assert_allclose(gradient, run(expected_gradient)(logits, direction), rtol=1e-5, atol=3e-5)


def test_no_gradient_passes_through_the_sample_alone():
    gradient = jax.grad(lambda log_probs: draw(log_probs, jax.random.key(0))[..., 0].sum())
    np.testing.assert_array_equal(gradient(jnp.log(jnp.full((6, 4), 0.25))), 0)


@plain_and_jit
def test_mode_is_the_most_likely_class(run):
    log_probs = jnp.log(jnp.array([[[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]]]))
    np.testing.assert_array_equal(run(mode_one_hot)(log_probs), [[[0, 1, 0], [1, 0, 0]]])


@plain_and_jit
@few
@given(latent_logits)
def test_entropy_lies_between_zero_and_that_of_the_uniform_distribution(run, logits):
    entropy = run(categorical_entropy)(UNIMIX[0.01](logits))
    assert entropy.shape == LATENT[:-1]
    assert (entropy >= 0).all()
    assert (entropy <= np.log(4) * (1 + 1e-5)).all()
    log_probs = float64_log_probs(logits, 0.01)
    np.testing.assert_allclose(entropy, -(np.exp(log_probs) * log_probs).sum(-1), rtol=1e-5, atol=1e-6)


@plain_and_jit
def test_entropy_and_kl_table(run):
    p, q = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    np.testing.assert_allclose(run(categorical_entropy)(p), np.log(2), rtol=1e-6)
    np.testing.assert_allclose(run(categorical_kl)(p, q), 0.5 * np.log(4 / 3), rtol=1e-6)
    np.testing.assert_allclose(run(categorical_kl)(q, p), 0.25 * np.log(1 / 2) + 0.75 * np.log(3 / 2), rtol=1e-6)


@plain_and_jit
@few
@given(latent_logits, latent_logits)
def test_kl_is_not_negative_and_zero_for_equal(run, post_logits, prior_logits):
    post, prior = UNIMIX[0.01](post_logits), UNIMIX[0.01](prior_logits)
    kl = run(categorical_kl)(post, prior)
    assert kl.shape == LATENT[:-1]
    assert (kl >= -1e-6).all()
    np.testing.assert_allclose(kl.sum(-1), float64_kl(post_logits, prior_logits, 0.01), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(categorical_kl)(post, post), 0)


@plain_and_jit
@pytest.mark.parametrize(("gradient", "slopes"), [("clip", [0, 0, 1, 1]), ("straight_through", [1, 1, 1, 1])])
def test_free_nats_floor_table(run, gradient, slopes):
    kl = jnp.array([0.0, 0.75, 1.5, 40.0])
    np.testing.assert_array_equal(run(FLOOR[gradient])(kl), [1, 1, 1.5, 40])
    np.testing.assert_array_equal(run(jax.grad(lambda kl: FLOOR[gradient](kl).sum()))(kl), slopes)


@plain_and_jit
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_free_nats_are_given_once_to_each_element_after_its_groups_are_summed(run, gradient):
    # KL of (e, 1 - e) from (1/2, 1/2): 0 at e = 1/2, and 0.5108 at e = 0.1 (with e = 0.9 the same).
    sure, unsure = [np.log(0.1), np.log(0.9)], [0.0, 0.0]
    post_logits = jnp.array([[unsure, unsure], [sure, unsure], [sure, [np.log(0.9), np.log(0.1)]], [sure, sure]])
    single = np.log(2) + 0.1 * np.log(0.1) + 0.9 * np.log(0.9)  # 0.368 nats
    free_nats = 1.5 * single  # above one group's KL, below two groups' sum, above the mean of the four elements
    losses = run(functools.partial(balanced_kl, unimix_share=0.0, free_nats=free_nats, gradient=gradient))(
        post_logits, jnp.zeros_like(post_logits)
    )
    for loss in losses:
        np.testing.assert_allclose(loss, [free_nats, free_nats, 2 * single, 2 * single], rtol=1e-5)


@plain_and_jit
@pytest.mark.parametrize("gradient", GRADIENTS)
@few
@given(post_logits=latent_logits, prior_logits=latent_logits)
def test_both_kl_losses_have_the_value_of_the_floored_kl(run, gradient, post_logits, prior_logits):
    expected = np.maximum(1, float64_kl(post_logits, prior_logits, 0.01))
    for loss in run(BALANCED_KL[gradient])(post_logits, prior_logits):
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def kl_gradients(loss, post_logits, prior_logits):
    """Gradient of the dynamics and of the representation loss, each by (post_logits, prior_logits)."""
    return [jax.grad(lambda *logits, i=i: loss(*logits)[i].sum(), (0, 1))(post_logits, prior_logits) for i in (0, 1)]


def raw_kl_gradient(post_logits, prior_logits):
    def kl(post_logits, prior_logits):
        return categorical_kl(UNIMIX[0.01](post_logits), UNIMIX[0.01](prior_logits)).sum()

    return jax.grad(kl, (0, 1))(post_logits, prior_logits)


@pytest.fixture(scope="module")
def near_and_far():
    """Logits of 3 posteriors below 1 nat from their priors, and of 3 well above."""
    prior, offset = jax.random.normal(jax.random.key(0), (2, *LATENT))
    near, far = (prior + 0.3 * offset, prior), (prior + 6 * offset, prior)
    assert (float64_kl(*near, 0.01) < 0.5).all()
    assert (float64_kl(*far, 0.01) > 2).all()
    return {"near": near, "far": far}


@plain_and_jit
@pytest.mark.parametrize(
    ("gradient", "distance", "passes"),
    [
        ("clip", "near", False),
        ("clip", "far", True),
        ("straight_through", "near", True),
        ("straight_through", "far", True),
    ],
)
def test_gradient_of_free_bits(run, near_and_far, gradient, distance, passes):
    logits = near_and_far[distance]
    loss = run(BALANCED_KL[gradient])
    (_, dynamics), (representation, _) = kl_gradients(loss, *logits)
    expected_post, expected_prior = raw_kl_gradient(*logits)
    if passes:
        np.testing.assert_allclose(dynamics, expected_prior, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(representation, expected_post, rtol=1e-5, atol=1e-6)
        # Per element: the far ones keep their gradient, whatever the mean over elements.
        assert (np.abs(dynamics).max((1, 2)) > 1e-3).all()
        assert (np.abs(representation).max((1, 2)) > 1e-3).all()
    else:
        np.testing.assert_array_equal(dynamics, 0)
        np.testing.assert_array_equal(representation, 0)


def test_free_bits_decide_element_by_element(near_and_far):
    # One far element beside two near ones, and the other way round: neither may decide for its neighbours.
    for chosen in ([0, 1, 1], [1, 0, 0]):
        far = np.array(chosen, bool)
        logits = [
            jnp.where(far[:, None, None], x, y) for x, y in zip(near_and_far["far"], near_and_far["near"], strict=True)
        ]
        (_, dynamics), (representation, _) = kl_gradients(BALANCED_KL["clip"], *logits)
        for gradient in (dynamics, representation):
            np.testing.assert_array_equal(np.abs(gradient).max((1, 2)) > 0, far)


def test_gradient_of_the_dynamics_loss_is_prior_minus_posterior(near_and_far):
    post_logits, prior_logits = near_and_far["far"]
    loss = functools.partial(balanced_kl, unimix_share=0.0, free_nats=0.0, gradient="clip")
    (_, dynamics), _ = kl_gradients(loss, post_logits, prior_logits)
    expected = scipy.special.softmax(prior_logits, -1) - scipy.special.softmax(post_logits, -1)
    np.testing.assert_allclose(dynamics, expected, atol=1e-6)


@plain_and_jit
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("distance", ["near", "far"])
def test_balanced_kl_stops_the_gradient_of_the_other_side(run, near_and_far, gradient, distance):
    loss = run(BALANCED_KL[gradient])
    (dynamics_by_post, _), (_, representation_by_prior) = kl_gradients(loss, *near_and_far[distance])
    np.testing.assert_array_equal(dynamics_by_post, 0)
    np.testing.assert_array_equal(representation_by_prior, 0)


@plain_and_jit
def test_normal_mean_and_standard_deviation_table(run):
    mean, std = run(normal_mean_std)(jnp.array([0.0, 0.5, -1e9, 1e9]), jnp.array([-2.0, 0.0, -1e9, 1e9]))
    np.testing.assert_allclose(mean, [0, np.tanh(0.5), -1, 1], rtol=1e-6)
    np.testing.assert_allclose(std, [0.55, 0.9 / (1 + np.exp(-2)) + 0.1, 0.1, 1], rtol=1e-6)


vectors = hnp.arrays(np.float32, (3, 2), elements=st.floats(-10, 10, width=32, allow_subnormal=False))
deviations = hnp.arrays(np.float32, (3, 2), elements=st.floats(0.125, 10, width=32, allow_subnormal=False))


@plain_and_jit
@few
@given(vectors, vectors, deviations)
def test_normal_log_density_and_entropy_against_scipy(run, x, mean, std):
    expected = scipy.stats.norm.logpdf(x.astype(np.float64), mean.astype(np.float64), std.astype(np.float64)).sum(-1)
    np.testing.assert_allclose(run(normal_log_prob)(x, mean, std), expected, rtol=1e-5, atol=1e-4)
    expected = scipy.stats.norm.entropy(scale=std.astype(np.float64)).sum(-1)
    np.testing.assert_allclose(run(normal_entropy)(std), expected, rtol=1e-5, atol=1e-5)


@plain_and_jit
def test_bernoulli_cross_entropy_table(run):
    logit = jnp.array([0.0, 0.0, np.log(3), np.log(3), np.log(3)])
    target = jnp.array([0.0, 0.7, 1.0, 0.0, 0.5])
    expected = [np.log(2), np.log(2), -np.log(0.75), -np.log(0.25), -0.5 * np.log(0.75) - 0.5 * np.log(0.25)]
    np.testing.assert_allclose(run(bernoulli_cross_entropy)(logit, target), expected, rtol=1e-6)


@plain_and_jit
@few
@given(
    hnp.arrays(
        np.float32, 12, elements=st.floats(width=32, allow_subnormal=False, allow_nan=False, allow_infinity=False)
    ),
    hnp.arrays(np.float32, 12, elements=st.floats(0, 1, width=32, allow_subnormal=False)),
)
def test_bernoulli_cross_entropy_with_soft_targets_and_any_logit(run, logit, target):
    value, gradient = run(bernoulli_value_and_gradient)(logit, target)
    assert np.isfinite(value).all()
    assert (value >= 0).all()
    # log(1 + exp(x)) - target x, without the cancellation at large x.
    x, target = logit.astype(np.float64), target.astype(np.float64)
    expected = np.log1p(np.exp(-np.abs(x))) + (1 - target) * np.maximum(x, 0) - target * np.minimum(x, 0)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, scipy.special.expit(x) - target, rtol=1e-5, atol=1e-6)


bernoulli_value_and_gradient = jax.vmap(jax.value_and_grad(bernoulli_cross_entropy))
