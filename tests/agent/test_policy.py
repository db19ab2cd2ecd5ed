"""Acting: which actions are chosen, how often, and when the past is forgotten."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from scipy import stats

from dreamerjax.agent.agent import Agent, build_agent
from dreamerjax.agent.policy import (
    action_distribution,
    categorical_actions,
    initial_policy_state,
    normal_actions,
    policy_step,
)
from dreamerjax.config import ActorConfig, AgentConfig
from dreamerjax.nets.networks import init_params
from dreamerjax.nets.rssm import latent_features
from dreamerjax.types import ActionSpec, LatentState, ObsSpec, Params, PolicyState, Spaces
from tests.tiny import MODEL, random_like

A = 3
KINDS = ["discrete", "continuous"]
KEY = jax.random.PRNGKey(5)


@functools.cache
def make_agent(kind) -> Agent:
    return build_agent(AgentConfig(model=MODEL), Spaces((ObsSpec("state", (4,)),), (ActionSpec(kind, A),)))


@functools.cache
def random_params(kind) -> Params:
    """Random parameters, without the structure of the initial ones: the actor prefers something."""
    shapes = jax.eval_shape(lambda key: init_params(make_agent(kind).networks, key), KEY)
    return random_like(shapes, scale=0.8)


@functools.cache
def compiled_step(kind, greedy: bool):
    return jit(functools.partial(policy_step, make_agent(kind), greedy=greedy))


def step(kind, policy_state: PolicyState, obs: jax.Array, is_first: jax.Array, *, greedy=False, key=KEY):
    return compiled_step(kind, greedy)(random_params(kind), policy_state, {"state": obs}, is_first, key)


def random_policy_state(kind, seed: int, size: int) -> PolicyState:
    rng, empty = np.random.default_rng(seed), initial_policy_state(make_agent(kind), size)
    stoch = np.eye(4)[rng.integers(4, size=(size, 4))]
    one_hot, vector = np.eye(A)[rng.integers(A, size=size)], rng.normal(size=(size, A))
    return PolicyState(
        latent=LatentState(
            deter=jnp.asarray(rng.normal(size=empty.latent.deter.shape), jnp.float32),
            stoch=jnp.asarray(stoch, jnp.float32),
        ),
        prev_action=jnp.asarray(one_hot if kind == "discrete" else vector, jnp.float32),
    )


def observations(size: int) -> jax.Array:
    return jax.random.normal(jax.random.PRNGKey(1), (size, 4))


def outputs(kind, policy_state: PolicyState) -> np.ndarray:
    """What the actor network says in the state that the agent believes to be in."""
    actor = make_agent(kind).networks.actor
    return np.asarray(actor.apply(random_params(kind).actor, latent_features(policy_state.latent)), np.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_takes_the_mode(kind):
    size = 64
    policy_state = random_policy_state(kind, 0, size)
    policy_state, action = step(kind, policy_state, observations(size), jnp.zeros(size, bool), greedy=True)
    said = outputs(kind, policy_state)
    if kind == "discrete":
        assert len(set(said.argmax(-1))) > 1  # not always the same choice
        np.testing.assert_array_equal(action, np.eye(A)[said.argmax(-1)])
    else:
        np.testing.assert_allclose(action, np.tanh(said[:, :A]), rtol=1e-4, atol=1e-5)
        assert np.abs(action).max() <= 1
    np.testing.assert_array_equal(policy_state.prev_action, action)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_actions_are_remembered_and_well_formed(kind):
    size = 64
    policy_state = random_policy_state(kind, 0, size)
    policy_state, action = step(kind, policy_state, observations(size), jnp.zeros(size, bool))
    assert action.shape == (size, A)
    assert action.dtype == jnp.float32
    np.testing.assert_array_equal(policy_state.prev_action, action)
    if kind == "discrete":
        np.testing.assert_array_equal(np.sort(action, -1), np.broadcast_to([0.0, 0.0, 1.0], (size, A)))
        assert (np.asarray(action).sum(0) > 0).all()  # every choice is taken by some
    else:
        mean = np.tanh(outputs(kind, policy_state)[:, :A])
        assert np.abs(action - mean).mean() > 0.05  # sampled, not the mode


@pytest.mark.parametrize("kind", KINDS)
def test_is_first_forgets_what_the_policy_remembered(kind):
    is_first, obs = jnp.array([True, False]), observations(2)
    one, other = (step(kind, random_policy_state(kind, seed, 2), obs, is_first, greedy=True) for seed in (1, 2))
    fresh = step(kind, initial_policy_state(make_agent(kind), 2), obs, is_first, greedy=True)
    one, other, fresh = ((latent_features(state.latent), action) for state, action in (one, other, fresh))
    for left, right, new in zip(one, other, fresh, strict=True):
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[0], new[0])
    assert np.abs(one[0][1] - other[0][1]).max() > 1e-2


def test_the_first_policy_state_is_empty():
    policy_state = initial_policy_state(make_agent("discrete"), 2)
    np.testing.assert_array_equal(latent_features(policy_state.latent), np.zeros((2, 32)))
    np.testing.assert_array_equal(policy_state.prev_action, np.zeros((2, A)))


def test_the_policy_samples_each_choice_as_often_as_it_says():
    size = 20_000
    obs = jnp.repeat(observations(1), size, 0)
    policy_state = initial_policy_state(make_agent("discrete"), size)
    policy_state, action = step("discrete", policy_state, obs, jnp.ones(size, bool))
    said = np.exp(outputs("discrete", policy_state))
    probs = said / said.sum(-1, keepdims=True)
    error = np.asarray(action).mean(0) - probs.mean(0)
    assert (np.abs(error) < 4 * np.sqrt((probs * (1 - probs)).mean(0) / size)).all()


def test_samples_of_a_categorical_have_its_frequencies():
    size = 50_000
    logits = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    samples = categorical_actions(jnp.tile(logits, (size, 1))).sample(KEY)
    assert stats.chisquare(np.asarray(samples, np.float64).sum(0), size * np.array([0.6, 0.3, 0.1])).pvalue > 1e-3


def test_samples_of_a_normal_have_its_mean_and_standard_deviation():
    """Mean tanh(0.5) and standard deviation 0.9 sigmoid(2) + 0.1; beyond the box they are not squashed."""
    distribution = normal_actions(jnp.tile(jnp.array([0.5, 0.0]), (50_000, 1)))
    samples = np.asarray(distribution.sample(KEY), np.float64)[:, 0]
    std = 0.9 / (1 + np.exp(-2)) + 0.1
    assert stats.kstest(samples, stats.norm(np.tanh(0.5), std).cdf).pvalue > 1e-3
    assert np.abs(samples).max() > 1.5


@pytest.mark.parametrize("outputs", [[0.3, -2.0, 0.1, 0.7], [50.0, -50.0, 50.0, -50.0]])
def test_the_mode_of_a_normal_is_in_the_box(outputs):
    mode = normal_actions(jnp.array(outputs)).mode()
    np.testing.assert_allclose(mode, np.tanh(outputs[:2]), rtol=1e-6)
    assert np.abs(mode).max() <= 1


def test_log_probs_and_entropies_are_those_of_scipy():
    probs = np.array([0.6, 0.3, 0.1])
    categorical = categorical_actions(jnp.log(jnp.asarray(probs, jnp.float32)))
    np.testing.assert_allclose(categorical.log_prob(jnp.array([0.0, 1.0, 0.0])), np.log(0.3), rtol=1e-5)
    np.testing.assert_allclose(categorical.entropy(), stats.entropy(probs), rtol=1e-5)
    np.testing.assert_allclose(categorical.std(), [stats.bernoulli(p).std() for p in probs], rtol=1e-5)

    normal = normal_actions(jnp.array([0.5, -1.0, 0.2, -3.0]))
    exact = stats.norm(np.tanh([0.5, -1.0]), 0.9 / (1 + np.exp(-(np.array([0.2, -3.0]) + 2))) + 0.1)
    np.testing.assert_allclose(normal.std(), exact.std(), rtol=1e-5)
    np.testing.assert_allclose(normal.log_prob(jnp.array([0.4, 2.0])), exact.logpdf([0.4, 2.0]).sum(), rtol=1e-5)
    np.testing.assert_allclose(normal.entropy(), exact.entropy().sum(), rtol=1e-5)


def test_the_actors_uniform_mixture_is_used_when_it_is_asked_for():
    config = AgentConfig(model=MODEL, actor=ActorConfig(unimix=0.03))
    agent = build_agent(config, make_agent("discrete").spaces)
    certain, unlikely = jnp.array([100.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(action_distribution(agent, certain).log_prob(unlikely), np.log(0.01), rtol=1e-5)
    np.testing.assert_allclose(action_distribution(make_agent("discrete"), certain).log_prob(unlikely), -100, rtol=1e-5)


# Several parts at once

PARTS = (ActionSpec("discrete", 3), ActionSpec("continuous", 2), ActionSpec("discrete", 2))


def test_parts_of_an_action_are_chosen_independently_side_by_side():
    agent = build_agent(AgentConfig(model=MODEL), Spaces((ObsSpec("state", (4,)),), PARTS))
    assert (agent.spaces.action_size, agent.networks.actor.outputs) == (7, 3 + 4 + 2)
    numbers = 2 * jax.random.normal(KEY, (4, 9))
    joint = action_distribution(agent, numbers)
    apart = [categorical_actions(numbers[:, :3]), normal_actions(numbers[:, 3:7]), categorical_actions(numbers[:, 7:])]
    action = joint.sample(KEY)
    assert action.shape == (4, 7)
    pieces = jnp.split(action, [3, 5], -1)
    for piece in (pieces[0], pieces[2]):
        np.testing.assert_array_equal(jnp.sort(piece, -1)[:, -1], 1)
        np.testing.assert_array_equal(piece.sum(-1), 1)
    log_probs = [part.log_prob(piece) for part, piece in zip(apart, pieces, strict=True)]
    np.testing.assert_allclose(joint.log_prob(action), sum(log_probs), rtol=1e-5)
    np.testing.assert_allclose(joint.entropy(), sum(part.entropy() for part in apart), rtol=1e-5)
    np.testing.assert_array_equal(joint.mode(), jnp.concatenate([part.mode() for part in apart], -1))

    # The two choices have nothing to do with each other: together they are as frequent as their product.
    many = action_distribution(agent, jnp.broadcast_to(numbers[0], (20_000, 9))).sample(KEY)
    table = np.einsum("ni,nj->ij", np.asarray(many[:, :3]), np.asarray(many[:, 5:])) / len(many)
    expected = np.outer(jax.nn.softmax(numbers[0, :3]), jax.nn.softmax(numbers[0, 7:]))
    np.testing.assert_allclose(table, expected, atol=0.015)


def test_an_agent_of_several_parts_acts_and_learns():
    """Every output of the actor gets a gradient; an update keeps every shape."""
    agent = build_agent(AgentConfig(model=MODEL), Spaces((ObsSpec("state", (4,)),), PARTS))
    state = initial_policy_state(agent, 2)
    params = random_like(jax.eval_shape(lambda key: init_params(agent.networks, key), KEY), scale=0.8)
    after, action = jit(functools.partial(policy_step, agent))(
        params, state, {"state": observations(2)}, jnp.ones(2, bool), KEY
    )
    assert action.shape == after.prev_action.shape == (2, 7)

    def objective(actor):
        distribution = action_distribution(agent, agent.networks.actor.apply(actor, latent_features(after.latent)))
        return (distribution.log_prob(action) + distribution.entropy()).sum()

    gradient = jit(jax.grad(objective))(params.actor)["params"]["out"]["bias"]
    assert (np.asarray(gradient) != 0).all()
