"""The world model's loss: the filter it rests on, its parts, and which part trains what."""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import Agent, build_agent, init_knobs
from dreamerjax.agent.dream import decode
from dreamerjax.agent.world_model import observation_loss, observe, world_model_loss
from dreamerjax.config import AgentConfig, WorldModelConfig
from dreamerjax.nets.encoder import Encoder
from dreamerjax.nets.networks import WorldModel, init_params
from dreamerjax.nets.rssm import from_stored, initial_latent, latent_features, latent_noise, to_stored
from dreamerjax.types import (
    ActionSpec,
    Batch,
    LatentState,
    Metrics,
    ObsSpec,
    Params,
    Posterior,
    Spaces,
    StoredLatent,
    Variables,
)
from tests.tiny import MODEL, random_like

T, B = 5, 3
SPACES = Spaces(obs=(ObsSpec("position", (3,)), ObsSpec("speed", (2,))), actions=(ActionSpec("discrete", 3),))
SCALES = WorldModelConfig(
    free_nats=2.0,
    reconstruction_scale=0.7,
    reward_scale=1.3,
    cont_scale=0.9,
    dynamics_scale=1.1,
    representation_scale=0.2,
)
AGENT = build_agent(AgentConfig(model=MODEL, world_model=SCALES), SPACES)
DISCOUNT = init_knobs(AGENT.config).discount
KEY = jax.random.PRNGKey(7)


def random_batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    is_first = np.zeros((T, B), bool)
    is_first[0, 0] = is_first[3, 1] = True
    is_last = np.zeros((T, B), bool)
    is_last[2, 1] = is_last[4, 2] = True
    return Batch(
        obs={spec.name: jnp.asarray(5 * rng.normal(size=(T, B, *spec.shape)), jnp.float32) for spec in SPACES.obs},
        prev_action=jnp.asarray(np.eye(3)[rng.integers(3, size=(T, B))], jnp.float32),
        reward=jnp.asarray(10 * rng.normal(size=(T, B)), jnp.float32),
        is_first=jnp.asarray(is_first),
        is_last=jnp.asarray(is_last),
        is_terminal=jnp.asarray(is_last & (np.arange(B) == 1)),
    )


BATCH = random_batch(1)


@pytest.fixture(scope="module")
def params() -> Variables:
    """Random parameters, without the structure of the initial ones: no head puts out zeros."""
    shapes = jax.eval_shape(lambda key: init_params(AGENT.networks, key), KEY).world_model
    return random_like(shapes, scale=0.8)


def apply(params: Variables, method, *inputs):
    return AGENT.networks.world_model.apply(params, *inputs, method=method)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mixed(logits: np.ndarray) -> np.ndarray:
    """99% softmax, 1% uniform."""
    return 0.99 * np.exp(log_softmax(logits)) + 0.01 / MODEL.classes


class Result(NamedTuple):
    """What `world_model_loss` gives, and beside it what the networks say of its posterior."""

    loss: jax.Array
    posterior: Posterior
    metrics: Metrics
    decoded: dict[str, jax.Array]
    reward_logits: jax.Array
    cont_logits: jax.Array


@pytest.fixture(scope="module")
def result(params) -> Result:
    @jit
    def compute(params):
        posterior = observe(AGENT, params, BATCH, KEY)
        loss, metrics = world_model_loss(AGENT, params, BATCH, posterior, discount=DISCOUNT)
        heads = (WorldModel.decode, WorldModel.reward, WorldModel.cont)
        outputs = [apply(params, method, latent_features(posterior.states)) for method in heads]
        return Result(loss, posterior, metrics, *outputs)

    return compute(params)


def test_the_scan_over_time_equals_going_step_by_step(params):
    posterior = jit(functools.partial(observe, AGENT))(params, BATCH, KEY)

    @jit
    def step(state, row, noise):
        embed = apply(params, WorldModel.encode, row.obs)
        state, post_logits = apply(params, WorldModel.observe_step, state, row.prev_action, embed, row.is_first, noise)
        return Posterior(state, post_logits, apply(params, WorldModel.prior, state.deter))

    state, noise = initial_latent(B, MODEL, jnp.dtype(jnp.float32)), latent_noise(KEY, T, B, config=MODEL)
    for t in range(T):
        expected = step(state, jax.tree.map(lambda x, t=t: x[t], BATCH), noise[t])
        actual = jax.tree.map(lambda x, t=t: x[t], posterior)
        chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)
        state = expected.states


def test_a_window_goes_on_from_its_context_but_not_past_a_first_row(params):
    """The second half of a batch, from the stored states of the first half's last row, equals the second of the whole.

    With latents that no noise can change, so that both draw the same.
    """
    sure = jax.tree.map(lambda x: x, params)
    sure["params"]["rssm"]["posterior_out"]["kernel"] = 1e4 * params["params"]["rssm"]["posterior_out"]["kernel"]
    config = dataclasses.replace(AGENT.config, model=dataclasses.replace(MODEL, unimix=0.0))
    agent = build_agent(config, SPACES)
    filtered = jit(functools.partial(observe, agent))
    whole = filtered(sure, BATCH, KEY)
    first, second = jax.tree.map(lambda x: x[:3], BATCH), jax.tree.map(lambda x: x[3:], BATCH)
    last = jax.tree.map(lambda x: x[-1], to_stored(filtered(sure, first, KEY).states))
    assert last.deter.shape == (B, MODEL.deter)
    assert (last.deter.dtype, last.stoch.dtype) == (jnp.bfloat16, jnp.uint8)
    with_context = filtered(sure, dataclasses.replace(second, context=last), KEY)
    features = np.asarray(latent_features(with_context.states))
    expected = np.asarray(latent_features(whole.states))[3:]
    np.testing.assert_allclose(features, expected, atol=0.02)
    without = np.asarray(latent_features(filtered(sure, second, KEY).states))
    far = np.abs(without - expected).max((0, 2)) > 0.1
    np.testing.assert_array_equal(far, [True, False, True])  # row 3 of sequence 1 begins an episode


def test_latents_are_stored_to_within_bfloat16_and_nothing_is_the_zero_state():
    state = LatentState(
        deter=jax.random.normal(KEY, (B, MODEL.deter)), stoch=jnp.eye(4)[jnp.arange(12).reshape(B, 4) % 4]
    )
    restored = from_stored(to_stored(state), MODEL, jnp.dtype(jnp.float32))
    np.testing.assert_array_equal(restored.stoch, state.stoch)
    np.testing.assert_allclose(restored.deter, state.deter, rtol=2**-8)
    nothing = StoredLatent(jnp.zeros((B, MODEL.deter), jnp.bfloat16), jnp.zeros((B, MODEL.groups), jnp.uint8))
    zero = initial_latent(B, MODEL, jnp.dtype(jnp.float32))
    chex.assert_trees_all_equal(from_stored(nothing, MODEL, jnp.dtype(jnp.float32)), zero)


def test_integers_are_seen_one_hot_and_predicted_by_cross_entropy():
    spec = ObsSpec("grid", (2, 3), classes=5)
    agent = build_agent(AgentConfig(model=MODEL), Spaces((spec,), SPACES.actions))
    assert spec.dtype == np.uint8
    assert not spec.is_image
    rng = np.random.default_rng(0)
    grid = rng.integers(5, size=(T, B, 2, 3)).astype(np.uint8)
    logits = rng.normal(size=(T, B, 2, 3, 5)).astype(np.float32)
    log_probs = log_softmax(logits)
    expected = -np.take_along_axis(log_probs, grid[..., None].astype(int), -1).sum((2, 3, 4))
    np.testing.assert_allclose(observation_loss(spec, jnp.asarray(logits), jnp.asarray(grid)), expected, rtol=1e-5)

    params = jit(lambda key: init_params(agent.networks, key))(KEY).world_model
    kernel = params["params"]["encoder"]["vectors"]["dense0"]["kernel"]
    assert kernel.shape[0] == 2 * 3 * 5
    one_hot = np.eye(5)[grid].reshape(T, B, -1)
    model = agent.networks.world_model
    embed = model.apply(params, {"grid": grid}, method=WorldModel.encode)
    by_hand = Encoder((ObsSpec("grid", (30,)),), MODEL, jnp.dtype(jnp.float32))
    # symlog(1) = log 2: a vector of ones and zeros, as the vector encoder would see it before its first layer
    expected = by_hand.apply({"params": params["params"]["encoder"]}, {"grid": jnp.float32(np.expm1(one_hot))})
    np.testing.assert_allclose(embed, expected, rtol=1e-5, atol=1e-6)
    state = initial_latent(B, MODEL, jnp.dtype(jnp.float32))
    seen = decode(agent, Params(world_model=params, actor=None, critic=None), state)["grid"]
    assert (seen.shape, seen.dtype) == ((B, 2, 3), np.uint8)
    assert seen.max() < 5


def test_the_loss_is_the_scaled_sum_of_its_parts_each_a_mean(result):
    """Every part once more in float64 numpy, from what the networks put out."""
    parts = {}
    errors = [
        ((np.asarray(result.decoded[name]) - np.sign(x) * np.log1p(np.abs(x))) ** 2).sum(-1)
        for name, x in BATCH.obs.items()
    ]
    parts["reconstruction"] = np.sum(errors, 0)

    # The cross entropy with a two-hot target is minus the log probability, interpolated linearly between the bins.
    bins = np.asarray(AGENT.bins, np.float64)
    log_probs = log_softmax(result.reward_logits)
    parts["reward"] = np.array(
        [[-np.interp(BATCH.reward[t, b], bins, log_probs[t, b]) for b in range(B)] for t in range(T)]
    )

    goes_on = 1 / (1 + np.exp(-np.asarray(result.cont_logits, np.float64)))
    target = (1 - np.asarray(BATCH.is_terminal)) * (1 - 1 / 333)
    parts["cont"] = -(target * np.log(goes_on) + (1 - target) * np.log(1 - goes_on))

    post, prior = mixed(result.posterior.post_logits), mixed(result.posterior.prior_logits)
    kl = (post * np.log(post / prior)).sum((-2, -1))  # over classes and groups, before the maximum
    assert (kl < 2).any()  # both sides of the free nats are in the batch
    assert (kl > 2).any()
    parts["dynamics"] = parts["representation"] = np.maximum(2, kl)

    for name, part in parts.items():
        assert part.shape == (T, B)
        np.testing.assert_allclose(result.metrics[f"{name}_loss"], part.mean(), rtol=1e-4, err_msg=name)
    scales = {"reconstruction": 0.7, "reward": 1.3, "cont": 0.9, "dynamics": 1.1, "representation": 0.2}
    expected = sum(scale * parts[name].mean() for name, scale in scales.items())
    np.testing.assert_allclose(result.loss, expected, rtol=1e-4)


def test_the_published_scales_are_the_default():
    scales = dataclasses.asdict(WorldModelConfig())
    published = {"reconstruction": 1.0, "reward": 1.0, "cont": 1.0, "dynamics": 1.0, "representation": 0.1}
    assert {name: scales[f"{name}_scale"] for name in published} == published
    assert scales["free_nats"] == 1.0
    np.testing.assert_allclose(DISCOUNT, 1 - 1 / 333, rtol=1e-6)


def test_the_metrics_are_complete_finite_scalars(result):
    losses = {f"{name}_loss" for name in ("reconstruction", "reward", "cont", "dynamics", "representation")}
    assert losses | {"posterior_entropy", "prior_entropy"} <= result.metrics.keys()
    for name, value in result.metrics.items():
        assert value.shape == (), name
        assert np.isfinite(value), name
    for name, logits in (("posterior", result.posterior.post_logits), ("prior", result.posterior.prior_logits)):
        probs = mixed(logits)
        entropy = -(probs * np.log(probs)).sum((-2, -1)).mean()
        np.testing.assert_allclose(result.metrics[f"{name}_entropy"], entropy, rtol=1e-4)


def touched(gradients: Variables) -> set[str]:
    """The paths of the parameters whose gradient is not exactly zero."""
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    return {jax.tree_util.keystr(path) for path, leaf in leaves if np.any(np.asarray(leaf) != 0)}


@pytest.fixture(scope="module")
def parameters_of(params) -> dict[str, set[str]]:
    """Which parameters the prior, the encoder and the posterior have, told by what moves their outputs."""
    state = initial_latent(B, MODEL, jnp.dtype(jnp.float32))
    state = jax.tree.map(lambda x: x + 0.1, state)
    row = jax.tree.map(lambda x: x[0], BATCH)

    def outputs(params):
        embed = apply(params, WorldModel.encode, row.obs)
        noise = latent_noise(KEY, B, config=MODEL)
        imagined = apply(params, WorldModel.imagine_step, state, row.prev_action, noise)
        _, logits = apply(params, WorldModel.observe_step, state, row.prev_action, embed, row.is_first, noise)
        prior = apply(params, WorldModel.prior, state.deter)
        return {"prior": prior, "encoder": embed, "recurrence": imagined.deter, "posterior": logits}

    @jit
    def gradients(params):
        values, pull_back = jax.vjp(outputs, params)
        rng = np.random.default_rng(0)
        weights = {name: jnp.asarray(rng.normal(size=x.shape), jnp.float32) for name, x in values.items()}
        zeros = jax.tree.map(jnp.zeros_like, values)
        return {name: pull_back(zeros | {name: weight})[0] for name, weight in weights.items()}

    paths = {name: touched(gradient) for name, gradient in gradients(params).items()}
    return paths | {"posterior": paths["posterior"] - paths["recurrence"] - paths["encoder"]}


@pytest.fixture(scope="module")
def touched_by(params):
    """Gradient of the loss with all scales 0 but one; the scales are traced, so this compiles once."""
    names = ("reconstruction", "reward", "cont", "dynamics", "representation")

    @jit
    def gradient(scales, batch):
        scaled = dataclasses.replace(SCALES, free_nats=0.0, **{f"{name}_scale": scales[name] for name in names})
        agent: Agent = AGENT._replace(config=dataclasses.replace(AGENT.config, world_model=scaled))

        def loss(params):
            return world_model_loss(agent, params, batch, observe(agent, params, batch, KEY), discount=DISCOUNT)[0]

        return jax.grad(loss)(params)

    def isolated(name: str, batch: Batch = BATCH) -> set[str]:
        return touched(gradient({other: jnp.float32(other == name) for other in names}, batch))

    return isolated


def test_each_network_is_told_apart(parameters_of):
    prior, encoder, posterior = (parameters_of[name] for name in ("prior", "encoder", "posterior"))
    assert prior
    assert encoder
    assert posterior
    assert not prior & (posterior | encoder | parameters_of["recurrence"])
    assert not encoder & posterior


def test_the_representation_loss_trains_the_posterior_and_leaves_the_prior(touched_by, parameters_of):
    paths = touched_by("representation")
    assert not paths & parameters_of["prior"]
    assert parameters_of["posterior"] | parameters_of["encoder"] | parameters_of["recurrence"] <= paths


def test_the_dynamics_loss_trains_the_prior_and_leaves_the_posterior(touched_by, parameters_of):
    """Rows that are all first have no earlier sample, through which the loss may rightly reach the posterior."""
    alone = BATCH.replace(is_first=jnp.ones((T, B), bool))
    paths = touched_by("dynamics", alone)
    assert parameters_of["prior"] <= paths
    assert not paths & (parameters_of["posterior"] | parameters_of["encoder"])
    # Over time, the samples that the recurrence read carry its gradient to the posterior.
    assert parameters_of["posterior"] | parameters_of["prior"] <= touched_by("dynamics")


@pytest.mark.parametrize("name", ["reconstruction", "reward", "cont"])
def test_predictions_train_the_posterior_and_leave_the_prior(touched_by, parameters_of, name):
    paths = touched_by(name)
    assert not paths & parameters_of["prior"]
    assert parameters_of["posterior"] | parameters_of["encoder"] | parameters_of["recurrence"] <= paths
