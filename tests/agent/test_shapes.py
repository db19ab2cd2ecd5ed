"""Arrays of a wrong shape are refused at the entrances of agent and nets, while tracing."""

import functools

import jax
import jax.numpy as jnp
import pytest

from dreamerjax.agent.agent import init_knobs
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.policy import initial_policy_state, policy_step
from dreamerjax.agent.replay_critic import replay_critic_loss
from dreamerjax.agent.world_model import observe
from dreamerjax.nets.rssm import initial_latent
from dreamerjax.types import Batch
from tests.agent.small import CONFIG, DISCRETE, KEY, MODEL, A, N, random_params

T, B = 4, 3
KNOBS = init_knobs(CONFIG)


def batch(**changes: tuple[int, ...]) -> Batch:
    """Rows of zeros, with other shapes where asked."""
    shapes = {"prev_action": (T, B, A)} | dict.fromkeys(("reward", "is_first", "is_last", "is_terminal"), (T, B))
    obs = {"state": jnp.zeros(changes.pop("obs", (T, B, 3)))}
    arrays = {
        name: jnp.zeros(shape, bool if name.startswith("is") else None) for name, shape in (shapes | changes).items()
    }
    return Batch(obs=obs, **arrays)


def traces(function, *inputs) -> bool:
    """Whether the function can be traced for inputs of these shapes."""
    try:
        jax.eval_shape(function, *inputs)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    "wrong", [{"prev_action": (T, B, A + 1)}, {"is_first": (B, T)}, {"obs": (T, B, 4)}, {"reward": (T, B, 1)}]
)
def test_rows(wrong):
    run = functools.partial(observe, DISCRETE)
    params = random_params(DISCRETE).world_model
    assert traces(run, params, batch(), KEY)
    assert not traces(run, params, batch(**wrong), KEY)


@pytest.mark.parametrize(("deter", "stoch"), [((N, MODEL.deter + 4), None), (None, (N, 4)), (None, (N + 1, 4, 4))])
def test_starts_of_imagination(deter, stoch):
    params, right = random_params(DISCRETE), initial_latent(N, MODEL, jnp.dtype(jnp.float32))
    run = functools.partial(imagine, DISCRETE, knobs=KNOBS)
    wrong = right.replace(deter=jnp.zeros(deter or right.deter.shape), stoch=jnp.zeros(stoch or right.stoch.shape))
    assert traces(run, params, params.critic, right, KEY)
    assert not traces(run, params, params.critic, wrong, KEY)


def test_a_policy_with_another_number_of_environments():
    run, params = functools.partial(policy_step, DISCRETE), random_params(DISCRETE)
    state, obs = initial_policy_state(DISCRETE, B), {"state": jnp.zeros((B, 3))}
    assert traces(run, params, state, obs, jnp.zeros(B, bool), KEY)
    assert not traces(run, params, state, obs, jnp.zeros(B + 1, bool), KEY)


def test_a_bootstrap_that_is_not_by_row():
    critic, features = random_params(DISCRETE).critic, jnp.zeros((T, B, 32))

    def loss(bootstrap):
        return replay_critic_loss(DISCRETE, critic, critic, features, batch(), bootstrap, KNOBS)

    assert traces(loss, jnp.zeros((T, B)))
    assert not traces(loss, jnp.zeros(T * B))
