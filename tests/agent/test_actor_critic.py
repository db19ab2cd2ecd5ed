"""Dreams, their targets, and the losses of actor and critic, with tables worked out by hand."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.actor_critic import (
    accumulated_grad,
    actor_loss,
    critic_loss,
    critic_value,
    dream_targets,
    imagine,
    replay_critic_loss,
    replay_returns,
)
from dreamerjax.agent.agent import Agent, build_agent, init_knobs
from dreamerjax.agent.policy import action_distribution, categorical_actions
from dreamerjax.config import AgentConfig, ReturnsConfig
from dreamerjax.math.transforms import symexp_bins
from dreamerjax.nets.networks import WorldModel, init_params
from dreamerjax.nets.rssm import initial_latent, latent_features, latent_noise
from dreamerjax.types import ActionSpec, Batch, LatentState, ObsSpec, Params, ReturnScale, Spaces, Trajectory
from tests.tiny import MODEL, random_like

H, N, A = 3, 6, 3
T, B = 4, 3
CONFIG = AgentConfig(model=MODEL, returns=ReturnsConfig(imagination_horizon=H))
KEY = jax.random.PRNGKey(11)
ZERO_SCALE = ReturnScale(low=jnp.zeros(()), high=jnp.zeros(()))


def make_agent(kind, config: AgentConfig = CONFIG) -> Agent:
    return build_agent(config, Spaces(obs=(ObsSpec("state", (3,)),), actions=(ActionSpec(kind, A),)))


DISCRETE = make_agent("discrete")


def random_params(agent: Agent, seed: int = 0) -> Params:
    """Random parameters, without the structure of the initial ones: no head puts out zeros."""
    shapes = jax.eval_shape(lambda key: init_params(agent.networks, key), KEY)
    return random_like(shapes, scale=0.7, seed=seed, small_returns=True)


def random_start() -> LatentState:
    rng = np.random.default_rng(3)
    empty = initial_latent(N, MODEL, jnp.dtype(jnp.float32))
    stoch = np.eye(4)[rng.integers(4, size=(N, 4))]
    return LatentState(jnp.asarray(rng.normal(size=empty.deter.shape), jnp.float32), jnp.asarray(stoch, jnp.float32))


def largest(tree) -> float:
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def column(*values: float) -> jax.Array:
    """One dream, or one sequence: [time, 1]."""
    return jnp.array(values, jnp.float32)[:, None]


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_a_dream_equals_going_step_by_step(kind):
    agent = make_agent(kind)
    params, slow_critic = random_params(agent), random_params(agent, seed=1).critic
    dream = jit(functools.partial(imagine, agent))(params, slow_critic, random_start(), KEY)
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
        return reward, cont, critic_value(agent, params.critic, features), critic_value(agent, slow_critic, features)

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


def hand_made_dream() -> Trajectory:
    return Trajectory(
        features=jnp.zeros((2, 1, 4)),
        action=jnp.zeros((2, 1, A)),
        reward=column(9, 1, 2),  # that of the start came before the dream
        cont=column(0.5, 0.5, 1),
        value=column(1, 2, 4),
        slow_value=column(7, 8, 9),
    )


def test_targets_worked_out_by_hand():
    # R_1 = r_2 + c_2 V_2 = 2 + 1 * 4 = 6,   R_0 = r_1 + c_1 (V_1 + R_1) / 2 = 1 + 0.5 (1 + 3) = 3
    targets, scale = dream_targets(DISCRETE, hand_made_dream(), ZERO_SCALE, return_lambda=0.5)
    np.testing.assert_allclose(targets.returns, column(3, 6))
    np.testing.assert_allclose(targets.weight, column(0.5, 0.25))  # the start's own cont counts
    np.testing.assert_allclose(targets.slow_value, column(7, 8))
    # 5% and 95% of the way from 3 to 6, and one hundredth of that: too small a range to divide by.
    np.testing.assert_allclose([scale.low, scale.high], [0.0315, 0.0585], rtol=1e-5)
    np.testing.assert_allclose(targets.advantage, column(3 - 1, 6 - 2))


def test_the_return_scale_is_updated_before_it_divides_the_advantage():
    returns = ReturnsConfig(imagination_horizon=H, scale_rate=1.0, scale_low=0.0, scale_high=1.0)
    agent = make_agent("discrete", dataclasses.replace(CONFIG, returns=returns))
    targets, scale = dream_targets(agent, hand_made_dream(), ZERO_SCALE, return_lambda=0.5)
    np.testing.assert_allclose([scale.low, scale.high], [3, 6])
    np.testing.assert_allclose(targets.advantage, column(2 / 3, 4 / 3), rtol=1e-6)


def test_a_start_that_has_ended_has_no_weight():
    dream = hand_made_dream().replace(cont=column(0, 0.5, 1))
    targets, _ = dream_targets(DISCRETE, dream, ZERO_SCALE, return_lambda=0.5)
    np.testing.assert_array_equal(targets.weight, column(0, 0))
    np.testing.assert_allclose(targets.returns, column(3, 6))  # whether the start had ended is not the future


def test_targets_are_constants():
    def total(dream, scale):
        targets, scale = dream_targets(DISCRETE, dream, scale, return_lambda=0.5)
        return sum(leaf.sum() for leaf in jax.tree.leaves((targets, scale)))

    gradients = jax.grad(total, argnums=(0, 1))(hand_made_dream(), ZERO_SCALE)
    assert largest(gradients) == 0


def test_the_actor_loss_moves_neither_the_world_model_nor_a_critic():
    """Neither the action, nor the advantage, nor the weight carries a gradient out of the dream."""
    params, slow_critic = random_params(DISCRETE), random_params(DISCRETE, seed=1).critic

    def loss(params: Params, slow_critic):
        dream = imagine(DISCRETE, params, slow_critic, random_start(), KEY)
        targets, _ = dream_targets(DISCRETE, dream, ZERO_SCALE, return_lambda=0.95)
        features = jax.lax.stop_gradient(dream.features[:H])
        policy = action_distribution(DISCRETE, DISCRETE.networks.actor.apply(params.actor, features))
        return actor_loss(policy, dream.action, targets.advantage, targets.weight, entropy_scale=3e-4).mean()

    gradient, of_slow_critic = jit(jax.grad(loss, argnums=(0, 1)))(params, slow_critic)
    assert largest(gradient.world_model) == largest(gradient.critic) == largest(of_slow_critic) == 0
    assert largest(gradient.actor) > 0


def test_the_actor_loss_worked_out_by_hand():
    """Two equal choices: log pi = -ln 2, entropy = ln 2, so -w (-ln 2 A + eta ln 2) = w ln 2 (A - eta)."""
    action, advantage, weight = jnp.array([1.0, 0.0]), jnp.array(2.0), jnp.array(0.5)

    def loss(logits, advantage, weight):
        return actor_loss(categorical_actions(logits), action, advantage, weight, entropy_scale=0.1)

    np.testing.assert_allclose(loss(jnp.zeros(2), advantage, weight), 0.5 * np.log(2) * (2 - 0.1), rtol=1e-6)
    gradients = jax.grad(loss, argnums=(0, 1, 2))(jnp.zeros(2), advantage, weight)
    # d log pi(a) / d logits = one_hot(a) - pi; the entropy is at its maximum.
    np.testing.assert_allclose(gradients[0], [-0.5 * 2 * 0.5, 0.5 * 2 * 0.5], rtol=1e-6)
    assert largest(gradients[1:]) == 0


def test_the_critic_loss_worked_out_by_hand():
    """Uniform logits cost ln 3 for any target, twice: w (1 + 0.5) ln 3."""
    bins, weight = jnp.array([-1.0, 0.0, 1.0]), jnp.array(0.2)

    def loss(logits, returns, slow_value, weight):
        return critic_loss(logits, returns, slow_value, weight, bins, slow_scale=0.5)

    inputs = (jnp.zeros(3), jnp.array(1.0), jnp.array(-0.5), weight)
    np.testing.assert_allclose(loss(*inputs), 0.2 * 1.5 * np.log(3), rtol=1e-6)
    gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*inputs)
    # softmax - two-hot for each term: (1/3, 1/3, -2/3) and half of (-1/6, -1/6, 1/3)
    np.testing.assert_allclose(gradients[0], 0.2 * np.array([1 / 4, 1 / 4, -1 / 2]), rtol=1e-5)
    assert largest(gradients[1:]) == 0


def test_the_critic_starts_at_exactly_zero():
    params = jit(lambda key: init_params(DISCRETE.networks, key).critic)(KEY)
    features = jax.random.normal(KEY, (T, B, 32))
    np.testing.assert_array_equal(critic_value(DISCRETE, params, features), np.zeros((T, B)))


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
    slow_value = np.asarray(critic_value(DISCRETE, slow_critic, features))
    knobs, bins = init_knobs(CONFIG), np.asarray(symexp_bins(31), np.float64)
    returns = replay_returns(
        REWARD, IS_LAST, IS_TERMINAL, BOOTSTRAP, discount=knobs.discount, return_lambda=knobs.return_lambda
    )
    expected = np.zeros((T - 1, B))
    for t, b in np.argwhere(~np.asarray(IS_LAST)[:-1]):
        targets = (returns[t, b], slow_value[t, b])
        expected[t, b] = -sum(np.interp(target, bins, log_probs[t, b]) for target in targets)
    np.testing.assert_allclose(replay_gradients[0], expected, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 4])
def test_accumulated_grad_equals_the_gradient_of_the_mean(rows):
    rng = np.random.default_rng(0)
    params = {"matrix": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "bias": jnp.asarray([0.1, -0.2])}
    data = (
        jnp.asarray(rng.normal(size=(rows, 5, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(rows, 5)), jnp.float32),
    )

    def loss(params, row):
        x, y = row
        error = jnp.tanh(x @ params["matrix"] + params["bias"][None]).sum(-1) - y
        return jnp.square(error).mean(), {"error": error.mean(), "largest": jnp.abs(error).max()}

    def mean_loss(params):
        each = [loss(params, jax.tree.map(lambda x, t=t: x[t], data)) for t in range(rows)]
        losses, metrics = zip(*each, strict=True)
        return sum(losses) / rows, jax.tree.map(lambda *values: sum(values) / rows, *metrics)

    gradient, metrics = jit(functools.partial(accumulated_grad, loss))(params, data)
    expected, expected_metrics = jit(jax.grad(mean_loss, has_aux=True))(params)
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=1e-5, atol=1e-6)
