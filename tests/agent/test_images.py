"""An agent that sees images, alone or beside vectors: its loss, its steps in an environment, its dreams."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import Agent, build_agent, init_knobs, init_train_state
from dreamerjax.agent.dream import decode, dream, open_loop
from dreamerjax.agent.policy import initial_policy_state, policy_step
from dreamerjax.agent.train_step import train_steps
from dreamerjax.agent.world_model import observe, world_model_loss
from dreamerjax.config import AgentConfig, WorldModelConfig
from dreamerjax.nets.networks import WorldModel, init_params
from dreamerjax.nets.rssm import latent_features
from dreamerjax.types import ActionSpec, Batch, ObsSpec, Params, Spaces
from tests.tiny import MODEL, random_like

T, B, A = 4, 2, 3
CAMERA, DEPTH, STATE = ObsSpec("camera", (16, 32, 3)), ObsSpec("depth", (16, 32, 1)), ObsSpec("state", (3,))
KEY = jax.random.PRNGKey(3)


class Seeing(NamedTuple):
    """An agent, random parameters without the structure of the initial ones, and rows of what it sees."""

    agent: Agent
    params: Params
    batch: Batch


@pytest.fixture(scope="module", params=[(CAMERA,), (CAMERA, STATE, DEPTH)], ids=["image", "images and vector"])
def seeing(request) -> Seeing:
    specs = request.param
    config = AgentConfig(model=MODEL, world_model=WorldModelConfig(free_nats=0.0))  # so that the KL has a gradient
    agent = build_agent(config, Spaces(specs, (ActionSpec("discrete", A),)))
    params = random_like(jax.eval_shape(lambda key: init_params(agent.networks, key), KEY), scale=0.8)
    rng = np.random.default_rng(0)
    batch = Batch(
        obs={
            spec.name: jnp.asarray(
                rng.integers(256, size=(T, B, *spec.shape)) if spec.is_image else rng.normal(size=(T, B, *spec.shape)),
                spec.dtype,
            )
            for spec in specs
        },
        prev_action=jnp.asarray(np.eye(A)[rng.integers(A, size=(T, B))], jnp.float32),
        reward=jnp.asarray(rng.normal(size=(T, B)), jnp.float32),
        is_first=jnp.zeros((T, B), bool).at[0].set(True),
        is_last=jnp.zeros((T, B), bool),
        is_terminal=jnp.zeros((T, B), bool),
    )
    return Seeing(agent, params, batch)


def test_the_loss_adds_the_errors_of_all_keys_and_reaches_every_parameter(seeing):
    agent, params, batch = seeing
    discount = init_knobs(agent.config).discount

    def loss(params):
        posterior = observe(agent, params, batch, KEY)
        loss, metrics = world_model_loss(agent, params, batch, posterior, discount=discount)
        features = latent_features(posterior.states)
        return loss, (metrics, agent.networks.world_model.apply(params, features, method=WorldModel.decode))

    (total, (metrics, decoded)), gradients = jit(jax.value_and_grad(loss, has_aux=True))(params.world_model)
    assert np.isfinite(total)
    expected = 0.0
    for spec in agent.spaces.obs:
        x, prediction = np.asarray(batch.obs[spec.name], np.float64), np.asarray(decoded[spec.name], np.float64)
        target = x / 255 if spec.is_image else np.sign(x) * np.log1p(np.abs(x))
        expected += np.square(prediction - target).sum() / (T * B)
    np.testing.assert_allclose(metrics["reconstruction_loss"], expected, rtol=1e-5)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.any(np.asarray(gradient) != 0), jax.tree_util.keystr(path)


def test_an_update_keeps_every_shape_and_dtype(seeing):
    agent, _, batch = seeing
    batches = jax.tree.map(lambda x: x[None], batch)
    state = jax.eval_shape(lambda key: init_train_state(agent, key), KEY)
    following, metrics, _ = jax.eval_shape(functools.partial(train_steps, agent), state, batches)
    assert following == state
    assert {metric.shape for metric in metrics.values()} == {()}


def test_the_policy_sees_the_image(seeing):
    agent, params, batch = seeing

    @jit
    def act(obs):
        return policy_step(agent, params, initial_policy_state(agent, T * B), obs, jnp.ones(T * B, bool), KEY)

    obs = jax.tree.map(lambda x: x.reshape(T * B, *x.shape[2:]), batch.obs)
    state, action = act(obs)
    assert action.shape == (T * B, A)
    # The last image stays, the others become their negatives; so do beliefs.
    changed, _ = act(obs | {"camera": obs["camera"].at[:-1].set(255 - obs["camera"][:-1])})
    np.testing.assert_array_equal(changed.latent.stoch[-1], state.latent.stoch[-1])
    assert not np.array_equal(changed.latent.stoch, state.latent.stoch)


def test_dreams_look_like_what_the_environment_gives(seeing):
    agent, params, batch = seeing
    kinds = {spec.name: (spec.shape, spec.dtype) for spec in agent.spaces.obs}
    seen = jit(lambda batch: open_loop(agent, params, batch, KEY, context=2))(batch)
    assert {name: (x.shape[2:], x.dtype) for name, x in seen.items()} == kinds
    assert {x.shape[:2] for x in seen.values()} == {(T, B)}

    start = initial_policy_state(agent, B).latent
    dreamed = jit(lambda start: dream(agent, params, start, KEY, horizon=3, cont_discount=1.0))(start)
    assert {name: (x.shape, x.dtype) for name, x in dreamed.obs.items()} == {
        name: ((3, B, *shape), dtype) for name, (shape, dtype) in kinds.items()
    }
    # Decoded 0 ... 1 are shown as 0 ... 255, to the nearest.
    model = agent.networks.world_model
    shown, decoded = jit(
        lambda state: (
            decode(agent, params, state),
            model.apply(params.world_model, latent_features(state), method=WorldModel.decode),
        )
    )(start)
    expected = 255 * np.asarray(decoded["camera"])
    assert np.ptp(expected) > 100
    np.testing.assert_allclose(shown["camera"], expected, atol=0.501)
