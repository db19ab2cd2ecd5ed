"""What many updates do, and updates on edge inputs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.agent.train_step_setup import CONFIG, B, T, make_knobs, random_batch, random_state, update


def test_one_batch_can_be_overfitted(discrete):
    """From the initial parameters on, 200 updates on the same few rows."""
    state = jit(functools.partial(init_train_state, discrete.agent))(jax.random.PRNGKey(0))
    history = []
    for _ in range(200):
        state, metrics = discrete.step(state, discrete.batches[0])
        history.append(metrics)
    for name, factor in (("reconstruction_loss", 10), ("reward_loss", 3)):
        values = [float(metrics[name]) for metrics in history]
        assert np.mean(values[-20:]) < np.mean(values[:5]) / factor, name


def test_the_entropy_scale_falls_along_half_a_cosine_and_stays(discrete):
    def entropy_scale(step: int) -> float:
        state = discrete.state.replace(step=jnp.asarray(step, jnp.int32))
        return float(discrete.step(state, discrete.batches[0])[1]["entropy_scale"])

    # From 0.1 at update 0 to a fifth of it at update 100; in the middle the mean of both.
    scales = [entropy_scale(step) for step in (0, 50, 100, 1000)]
    np.testing.assert_allclose(scales, [0.1, 0.06, 0.02, 0.02], rtol=1e-5)


def test_more_entropy_scale_keeps_more_entropy(discrete):
    def entropy_after(entropy_scale: float) -> float:
        state = discrete.state.replace(knobs=make_knobs(CONFIG, entropy_scale=entropy_scale, actor_learning_rate=1e-2))
        for _ in range(30):
            state, metrics = discrete.step(state, discrete.batches[0])
        return float(metrics["actor_entropy"])

    assert entropy_after(100.0) > entropy_after(0.0) + 0.05


EDGES = {
    "zero rewards": lambda batch: batch.replace(reward=jnp.zeros((T, B))),
    "all terminal": lambda batch: batch.replace(is_terminal=jnp.ones((T, B), bool), is_last=jnp.ones((T, B), bool)),
    "all first": lambda batch: batch.replace(is_first=jnp.ones((T, B), bool)),
    "nothing but zeros": lambda batch: jax.tree.map(jnp.zeros_like, batch),
    "huge": lambda batch: batch.replace(reward=1e12 * batch.reward, obs=jax.tree.map(lambda x: 1e12 * x, batch.obs)),
}


def test_an_agent_with_nothing_to_choose_and_nothing_to_see_has_numbers():
    """One action, one observation: gradients of exactly 0, and no entropy to have a share of."""
    obs, actions = (ObsSpec("one", (), 1),), (ActionSpec("discrete", 1),)
    agent = build_agent(CONFIG, Spaces(obs, actions))
    state, plain = random_state(agent), random_batch("discrete", 0)
    batch = dataclasses.replace(
        plain, obs={"one": jnp.zeros(plain.reward.shape, jnp.uint8)}, prev_action=jnp.ones((*plain.reward.shape, 1))
    )
    step = jit(functools.partial(update, agent))
    for _ in range(3):
        state, metrics = step(state, batch)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, state.params, state.opt_state)))
        assert metrics["actor_grad_norm"] == 0
        assert metrics["actor_entropy"] == 0
        assert metrics["actor_entropy_share"] == 1


@pytest.mark.parametrize("edge", EDGES)
def test_edge_inputs_give_no_nan(either, edge):
    batch = EDGES[edge](either.batches[0])
    start = jax.tree.map(jnp.zeros_like, either.state).replace(knobs=either.state.knobs, key=either.state.key)
    with jax.debug_nans(True):
        for state in (either.state, start):  # in the middle of learning; all parameters zero
            state, _ = either.step(state, batch)
            state, metrics = either.step(state, batch)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, metrics)))
