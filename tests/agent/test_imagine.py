"""Imagined trajectories against a loop over single steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import init_knobs
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.predictions import predict_value
from dreamerjax.nets.networks import WorldModel
from dreamerjax.nets.rssm import latent_features, latent_noise
from tests.agent.small import CONFIG, DISCRETE, KEY, MODEL, A, H, N, make_agent, random_params, random_start


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_a_dream_equals_going_step_by_step(kind):
    agent = make_agent(kind)
    params, slow_critic = random_params(agent), random_params(agent, seed=1).critic
    dream = jit(functools.partial(imagine, agent, knobs=init_knobs(CONFIG)))(params, slow_critic, random_start(), KEY)
    apply = agent.networks.world_model.apply

    @jit
    def step(state, key):
        action_key, latent_key = jax.random.split(key)
        action = action_distribution(agent, agent.networks.actor.apply(params.actor, latent_features(state))).sample(
            action_key
        )
        noise = latent_noise(latent_key, N, config=MODEL)
        return action, apply(params.world_model, state, action, noise, method=WorldModel.imagine_step)

    @jit
    def predict(features):
        probs = jax.nn.softmax(apply(params.world_model, features, method=WorldModel.reward))
        reward = (probs * jnp.broadcast_to(agent.bins, probs.shape)).sum(-1)
        cont = jax.nn.sigmoid(apply(params.world_model, features, method=WorldModel.cont))
        return reward, cont, predict_value(agent, params.critic, features), predict_value(agent, slow_critic, features)

    state = random_start()
    for h, key in enumerate(jax.random.split(KEY, H)):
        action, following = step(state, key)
        np.testing.assert_allclose(dream.features[h], latent_features(state), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dream.action[h], action, rtol=1e-4, atol=1e-5)
        expected = predict(latent_features(state))
        np.testing.assert_allclose(dream.reward[h], expected[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dream.cont[h], expected[1], rtol=1e-4)
        np.testing.assert_allclose(dream.value[h], expected[2], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dream.slow_value[h], expected[3], rtol=1e-4, atol=1e-4)
        state = following
    expected = predict(latent_features(state))  # the last state is valued too, but nothing is done there
    for actual, value in zip((dream.reward, dream.cont, dream.value, dream.slow_value), expected, strict=True):
        assert actual.shape == (H + 1, N)
        np.testing.assert_allclose(actual[H], value, rtol=1e-4, atol=1e-4)
    assert dream.action.shape == (H, N, A)
    assert np.abs(dream.value - dream.slow_value).max() > 0.1  # the two critics are two


def test_a_frozen_continue_head_gets_the_discount_that_is_wanted_now():
    params, knobs = random_params(DISCRETE), init_knobs(CONFIG)
    run = jit(lambda knobs: imagine(DISCRETE, params, params.critic, random_start(), KEY, knobs=knobs))
    usual, shorter = run(knobs), run(knobs.replace(discount=0.5 * knobs.cont_discount))
    np.testing.assert_allclose(shorter.cont, 0.5 * usual.cont, rtol=1e-6)
    np.testing.assert_array_equal(shorter.action, usual.action)
