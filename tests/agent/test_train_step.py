"""One update of everything, against a plain composition of the losses and against itself in its other forms."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import Agent, build_agent, init_knobs, init_train_state
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.predictions import predict_value
from dreamerjax.agent.train_step import train_step, train_steps
from dreamerjax.agent.world_model import observe
from dreamerjax.bench.flops import matmul_flop
from dreamerjax.config import (
    ActorConfig,
    AgentConfig,
    Config,
    CriticConfig,
    OptimizerConfig,
    ReturnsConfig,
    WorldModelConfig,
    resolve,
)
from dreamerjax.math.distributions import balanced_kl
from dreamerjax.math.transforms import symlog, two_hot_cross_entropy
from dreamerjax.nets.networks import WorldModel
from dreamerjax.nets.rssm import latent_features, merge_time
from dreamerjax.types import ActionSpec, Batch, Knobs, ObsSpec, Params, ReturnScale, Spaces, TrainState
from tests.tiny import MODEL, random_like

T, B, H, A = 5, 3, 3, 3
U = 3
OBS = (ObsSpec("state", (4,)),)
CONFIG = AgentConfig(
    model=dataclasses.replace(MODEL, reward_layers=0, cont_layers=0, prior_layers=0, posterior_layers=0),
    world_model=WorldModelConfig(learning_rate=1e-2, free_nats=0.5),
    actor=ActorConfig(
        learning_rate=3e-3,
        entropy_scale=0.1,
        entropy_schedule="cosine",
        entropy_final_fraction=0.2,
        entropy_decay_updates=100,
    ),
    critic=CriticConfig(learning_rate=5e-3),
    returns=ReturnsConfig(imagination_horizon=H),
    # A larger epsilon than the published one: rounding errors are not blown up to whole steps.
    optimizer=OptimizerConfig(warmup_updates=0, epsilon=1e-6),
)
PARTS = ("world_model", "actor", "critic")


def make_agent(kind, config: AgentConfig = CONFIG) -> Agent:
    return build_agent(config, Spaces(obs=OBS, actions=(ActionSpec(kind, A),)))


def random_batch(kind, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    is_first, is_last = np.zeros((T, B), bool), np.zeros((T, B), bool)
    is_first[0, 0] = is_first[3, 1] = is_last[2, 1] = is_last[4, 2] = True
    one_hot, vector = np.eye(A)[rng.integers(A, size=(T, B))], 2 * rng.normal(size=(T, B, A))
    return Batch(
        obs={spec.name: jnp.asarray(5 * rng.normal(size=(T, B, *spec.shape)), jnp.float32) for spec in OBS},
        prev_action=jnp.asarray(one_hot if kind == "discrete" else vector, jnp.float32),
        reward=jnp.asarray(3 * rng.normal(size=(T, B)), jnp.float32),
        is_first=jnp.asarray(is_first),
        is_last=jnp.asarray(is_last),
        is_terminal=jnp.asarray(is_last & (np.arange(B) == 1)),
    )


def random_state(agent: Agent) -> TrainState:
    """A state in the middle of learning: random parameters, a slow critic that lags, a return scale, update 50."""
    shapes = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0))
    params, slow_critic = random_like((shapes.params, shapes.slow_critic), scale=0.7, small_returns=True)
    fresh = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return fresh.replace(
        step=jnp.asarray(50, jnp.int32),
        params=params,
        slow_critic=slow_critic,
        return_scale=ReturnScale(low=jnp.float32(-1.0), high=jnp.float32(2.0)),
        knobs=make_knobs(agent.config),
        key=jax.random.PRNGKey(3),
    )


def make_knobs(config: AgentConfig, **changes: float) -> Knobs:
    return init_knobs(config).replace(**{name: jnp.float32(value) for name, value in changes.items()})


class Setup(NamedTuple):
    """An agent with a state, batches, and its joint update, which may be traced but once."""

    agent: Agent
    state: TrainState
    batches: list[Batch]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]


def update(agent: Agent, state: TrainState, batch: Batch, **options: Any) -> tuple[TrainState, dict[str, Any]]:
    """`train_step` on windows without a context, of which no latent states come back."""
    state, metrics, latents = train_step(agent, state, batch, **options)
    assert latents is None
    return state, metrics


def make_setup(kind) -> Setup:
    agent = make_agent(kind)

    @functools.partial(chex.assert_max_traces, n=1)
    def traced(result):
        return result

    def step(state, batch):
        return traced(update(agent, state, batch))

    return Setup(agent, random_state(agent), [random_batch(kind, seed) for seed in range(U)], jit(step))


@pytest.fixture(scope="module", autouse=True)
def _no_traces_yet() -> None:
    chex.clear_trace_counter()


@pytest.fixture(scope="module")
def discrete() -> Setup:
    return make_setup("discrete")


@pytest.fixture(scope="module")
def continuous() -> Setup:
    return make_setup("continuous")


@pytest.fixture(scope="module", params=["discrete", "continuous"])
def either(request) -> Setup:
    return request.getfixturevalue(request.param)


def run(setup: Setup, state: TrainState | None = None) -> tuple[TrainState, list[dict[str, Any]]]:
    """One update on each of the batches."""
    state, history = state or setup.state, []
    for batch in setup.batches:
        state, metrics = setup.step(state, batch)
        history.append(metrics)
    return state, history


def same(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


# -- What an update changes


def test_a_joint_update_changes_every_parameter(either):
    state, metrics = either.step(either.state, either.batches[0])
    for part in PARTS:
        before, after = getattr(either.state.params, part), getattr(state.params, part)
        for path, leaf in jax.tree_util.tree_leaves_with_path(before):
            changed = after
            for entry in path:
                changed = changed[entry.key]
            assert not np.array_equal(leaf, changed), jax.tree_util.keystr(path)
        assert not same(getattr(either.state.opt_state, part), getattr(state.opt_state, part))
    assert not same(either.state.return_scale, state.return_scale)
    assert not same(either.state.key, state.key)
    assert same(either.state.knobs, state.knobs)
    assert int(state.step) == 51
    expected = {f"{part}_grad_norm" for part in PARTS}
    losses = ("reconstruction", "reward", "cont", "dynamics", "representation", "actor", "critic", "replay_critic")
    expected |= {f"{name}_loss" for name in losses}
    expected |= {"actor_entropy", "value_mean", "return_mean", "return_scale", "advantage_std", "entropy_scale"}
    assert expected <= metrics.keys()
    for name, value in metrics.items():
        assert value.shape == (), name
        assert np.isfinite(value), name


def test_the_slow_critic_follows_the_new_critic_at_its_rate(discrete):
    state, _ = discrete.step(discrete.state, discrete.batches[0])
    expected = jax.tree.map(
        lambda slow, fast: 0.98 * slow + 0.02 * fast, discrete.state.slow_critic, state.params.critic
    )
    chex.assert_trees_all_close(state.slow_critic, expected, rtol=1e-5, atol=1e-7)


def test_each_part_has_its_own_learning_rate(discrete):
    """Rates are data. With a rate of 0 a part stays; twice the rate is twice the step."""
    rates = {"world_model_learning_rate": 0.0, "actor_learning_rate": 6e-3, "critic_learning_rate": 5e-3}
    plain, _ = discrete.step(discrete.state, discrete.batches[0])
    other, _ = discrete.step(discrete.state.replace(knobs=make_knobs(CONFIG, **rates)), discrete.batches[0])
    start = discrete.state.params
    assert same(other.params.world_model, start.world_model)
    assert same(other.params.critic, plain.params.critic)
    moved = jax.tree.map(
        lambda new, old: new - old, (plain.params.actor, other.params.actor), (start.actor, start.actor)
    )
    chex.assert_trees_all_close(moved[1], jax.tree.map(lambda x: 2 * x, moved[0]), rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def step_of_mode(discrete):
    """An update in a mode, compiled once."""
    return functools.cache(lambda mode: jit(functools.partial(update, discrete.agent, mode=mode)))


@pytest.mark.parametrize(
    ("mode", "trained", "frozen"),
    [("world_model", ("world_model",), ("actor", "critic")), ("actor_critic", ("actor", "critic"), ("world_model",))],
)
def test_a_mode_leaves_what_it_does_not_train_bit_for_bit(discrete, step_of_mode, mode, trained, frozen):
    state, _ = discrete.step(discrete.state, discrete.batches[0])  # so that the optimizers remember something
    after, metrics = step_of_mode(mode)(state, discrete.batches[1])
    for part in frozen:
        assert same(getattr(after.params, part), getattr(state.params, part)), part
        assert same(getattr(after.opt_state, part), getattr(state.opt_state, part)), part
    for part in trained:
        assert not same(getattr(after.params, part), getattr(state.params, part)), part
    assert same(after.slow_critic, state.slow_critic) == (mode == "world_model")
    assert same(after.return_scale, state.return_scale) == (mode == "world_model")
    assert int(after.step) == 52
    assert not same(after.key, state.key)
    assert all(np.isfinite(value) for value in metrics.values())


def test_actor_and_critic_alone_learn_just_as_in_the_joint_update(discrete, step_of_mode):
    """They never wait for the world model's step: both see the parameters from before the update."""
    joint, _ = discrete.step(discrete.state, discrete.batches[0])
    alone, _ = step_of_mode("actor_critic")(discrete.state, discrete.batches[0])
    for part in ("actor", "critic"):
        chex.assert_trees_all_close(getattr(alone.params, part), getattr(joint.params, part), rtol=1e-3, atol=2e-5)


LOSSES = {
    "reconstruction": {"world_model"},
    "reward": {"world_model"},
    "cont": {"world_model"},
    "dynamics": {"world_model"},
    "representation": {"world_model"},
    "actor": {"actor"},
    "critic": {"critic"},
    "replay_critic": {"world_model", "critic"},
}


@pytest.fixture(scope="module")
def isolated_step(discrete):
    """A joint update with all loss scales 0 but one. The scales are traced, so this compiles once."""
    own = ("actor", "critic", "replay_critic")

    @jit
    def step(scales, state, batch):
        of_world_model = {f"{name}_scale": scales[name] for name in LOSSES if name not in own}
        config = dataclasses.replace(
            CONFIG,
            world_model=dataclasses.replace(CONFIG.world_model, free_nats=0.0, **of_world_model),
            actor=dataclasses.replace(CONFIG.actor, loss_scale=scales["actor"]),
            critic=dataclasses.replace(
                CONFIG.critic, loss_scale=scales["critic"], replay_scale=scales["replay_critic"]
            ),
        )
        return train_step(discrete.agent._replace(config=config), state, batch)[0]

    return lambda name: step(
        {other: jnp.float32(other == name) for other in LOSSES}, discrete.state, discrete.batches[0]
    )


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_trains_what_the_paper_says_and_nothing_else(discrete, isolated_step, name):
    state = isolated_step(name)
    changed = {part for part in PARTS if not same(getattr(state.params, part), getattr(discrete.state.params, part))}
    assert changed == LOSSES[name]


# -- The update against a plain composition


def plain_total_loss(agent: Agent, params: Params, state: TrainState, batch: Batch, entropy_scale: float):
    """The sum of all losses, all N starts and H steps at once, written from the paper; and the new return scale."""
    stop, knobs = jax.lax.stop_gradient, state.knobs
    observe_key, dream_key, _ = jax.random.split(state.key, 3)
    posterior = observe(agent, params.world_model, batch, observe_key)
    features = latent_features(posterior.states)

    def predict(method):
        return agent.networks.world_model.apply(params.world_model, features, method=method)

    decoded = predict(WorldModel.decode)
    reconstruction = sum(jnp.square(decoded[name] - symlog(x)).sum(-1) for name, x in batch.obs.items())
    reward = two_hot_cross_entropy(predict(WorldModel.reward), batch.reward, agent.bins)
    goes_on, target = jax.nn.sigmoid(predict(WorldModel.cont)), (1 - batch.is_terminal) * (1 - 1 / 333)
    cont = -(target * jnp.log(goes_on) + (1 - target) * jnp.log(1 - goes_on))
    dynamics, representation = balanced_kl(
        posterior.post_logits, posterior.prior_logits, unimix_share=0.01, free_nats=0.5, gradient="clip"
    )
    losses = [(1, reconstruction), (1, reward), (1, cont), (1, dynamics), (0.1, representation)]

    starts = merge_time(posterior.states)
    dream = stop(imagine(agent, stop(params), state.slow_critic, stop(starts), dream_key, knobs=knobs))
    following, returns = dream.value[H], []
    for h in reversed(range(H)):
        future = (1 - 0.95) * dream.value[h + 1] + 0.95 * following
        following = dream.reward[h + 1] + dream.cont[h + 1] * future
        returns.insert(0, following)
    returns = jnp.stack(returns)
    weight = jnp.stack([jnp.prod(dream.cont[: h + 1], 0) for h in range(H)])
    low = 0.99 * state.return_scale.low + 0.01 * jnp.percentile(returns, 5)
    high = 0.99 * state.return_scale.high + 0.01 * jnp.percentile(returns, 95)
    advantage = (returns - dream.value[:H]) / jnp.maximum(1, high - low)

    policy = action_distribution(agent, agent.networks.actor.apply(params.actor, dream.features[:H]))
    actor = -weight * (policy.log_prob(dream.action) * stop(advantage) + entropy_scale * policy.entropy())
    logits = agent.networks.critic.apply(params.critic, dream.features[:H])
    critic = two_hot_cross_entropy(logits, returns, agent.bins)
    critic = weight * (critic + two_hot_cross_entropy(logits, dream.slow_value[:H], agent.bins))
    losses += [(1, actor), (1, critic)]

    bootstrap = returns[0].reshape(T, B)
    following, replay_returns = bootstrap[T - 1], []
    for t in reversed(range(T - 1)):
        lambda_ = jnp.where(batch.is_last[t + 1], 0, knobs.return_lambda)
        future = (1 - lambda_) * bootstrap[t + 1] + lambda_ * following
        following = batch.reward[t + 1] + jnp.where(batch.is_terminal[t + 1], 0, 1 - 1 / 333) * future
        replay_returns.insert(0, following)
    logits = agent.networks.critic.apply(params.critic, features[: T - 1])
    slow_value = stop(predict_value(agent, state.slow_critic, features[: T - 1]))
    replay_critic = two_hot_cross_entropy(logits, jnp.stack(replay_returns), agent.bins)
    replay_critic = replay_critic + two_hot_cross_entropy(logits, slow_value, agent.bins)
    losses += [(0.3, jnp.where(batch.is_last[: T - 1], 0, replay_critic))]
    return sum(scale * loss.mean() for scale, loss in losses), ReturnScale(low=low, high=high)


class PlainOptimizer:
    """Clipping by the parameter's norm, then LaProp, in float64; the first update is number 1."""

    def __init__(self, param) -> None:
        self.param, self.number, self.square, self.momentum = np.asarray(param, np.float64), 0, 0.0, 0.0

    def update(self, gradient, learning_rate: float) -> jax.Array:
        gradient = np.asarray(gradient, np.float64)
        limit = 0.3 * max(1e-3, np.linalg.norm(self.param))
        gradient = gradient / max(1, np.linalg.norm(gradient) / limit)
        self.number += 1
        self.square = 0.999 * self.square + 0.001 * gradient**2
        gradient = gradient / (np.sqrt(self.square / (1 - 0.999**self.number)) + 1e-6)
        self.momentum = 0.9 * self.momentum + 0.1 * gradient
        self.param = self.param - learning_rate * self.momentum / (1 - 0.9**self.number)
        return jnp.asarray(self.param, jnp.float32)


def test_joint_updates_equal_a_plain_composition(either):
    """Three updates in a row, from one `jax.grad` of the sum of all losses and an optimizer in numpy."""
    agent = either.agent
    gradient = jit(jax.grad(functools.partial(plain_total_loss, agent), has_aux=True))
    plain = either.state
    optimizers = jax.tree.map(PlainOptimizer, plain.params)
    rates = Params(world_model=1e-2, actor=3e-3, critic=5e-3)
    for batch in either.batches:
        # Half a cosine from 0.1 to a fifth of it, over 100 updates.
        entropy_scale = 0.1 * (0.2 + 0.8 * (1 + math.cos(math.pi * int(plain.step) / 100)) / 2)
        inputs = plain.replace(params=None, opt_state=None)
        gradients, return_scale = gradient(plain.params, inputs, batch, jnp.float32(entropy_scale))
        params = Params(
            **{
                part: jax.tree.map(
                    functools.partial(PlainOptimizer.update, learning_rate=getattr(rates, part)),
                    getattr(optimizers, part),
                    getattr(gradients, part),
                )
                for part in PARTS
            }
        )
        plain = plain.replace(
            step=plain.step + 1,
            params=params,
            slow_critic=jax.tree.map(lambda slow, fast: 0.98 * slow + 0.02 * fast, plain.slow_critic, params.critic),
            return_scale=return_scale,
            key=jax.random.split(plain.key, 3)[2],
        )

    state, _ = run(either)
    for part in PARTS:
        actual, expected = getattr(state.params, part), getattr(plain.params, part)
        chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(state.slow_critic, plain.slow_critic, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(state.return_scale, plain.return_scale, rtol=1e-4)
    assert same(state.key, plain.key)
    assert int(state.step) == 53


# -- The same update in its other forms


def test_the_update_is_traced_once_for_any_state_batch_and_knobs(discrete):
    """`Setup.step` raises when it is traced a second time."""
    state, _ = run(discrete)
    state, _ = run(discrete, state.replace(knobs=make_knobs(CONFIG, entropy_scale=0.5, discount=0.9)))
    fresh = jax.tree.map(lambda x: jnp.zeros_like(x), discrete.state)
    discrete.step(fresh, discrete.batches[0])
    assert int(state.step) == 56


def test_several_updates_in_one_dispatch_equal_one_after_the_other_and_the_state_is_donated(discrete):
    many = jit(functools.partial(train_steps, discrete.agent), donate_argnums=0)
    donated = jax.tree.map(jnp.copy, discrete.state)
    batches = jax.tree.map(lambda *rows: jnp.stack(rows), *discrete.batches)
    state, metrics, latents = many(donated, batches)
    assert latents is None
    expected, history = run(discrete)
    assert same(state.key, expected.key)
    assert int(state.step) == int(expected.step) == 53
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-3, atol=2e-5)
    chex.assert_trees_all_close(state.opt_state, expected.opt_state, rtol=1e-3, atol=1e-5)
    mean = jax.tree.map(lambda *values: sum(values) / U, *history)
    chex.assert_trees_all_close(metrics, mean, rtol=1e-3, atol=1e-4)
    # A donated buffer that could not be used would have been a warning, and warnings are errors.
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((donated.params, donated.opt_state, donated.slow_critic)))


@pytest.mark.parametrize("size", [1, 2])
def test_a_population_equals_its_members_trained_apart(discrete, size):
    changes = [{}, {"world_model_learning_rate": 2e-3, "actor_learning_rate": 1e-2, "entropy_scale": 0.7}]
    members = [discrete.state.replace(knobs=make_knobs(CONFIG, **change)) for change in changes[:size]]
    population = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    step = jit(jax.vmap(functools.partial(update, discrete.agent), in_axes=(0, None)))
    population, metrics = step(population, discrete.batches[0])
    results = [discrete.step(member, discrete.batches[0]) for member in members]
    for index, (state, own_metrics) in enumerate(results):
        member = jax.tree.map(lambda x, index=index: x[index], population)
        chex.assert_trees_all_close(member.params, state.params, rtol=1e-3, atol=2e-5)
        chex.assert_trees_all_close(member.slow_critic, state.slow_critic, rtol=1e-3, atol=2e-5)
        for name, value in own_metrics.items():
            np.testing.assert_allclose(metrics[name][index], value, rtol=1e-3, atol=1e-4, err_msg=name)
    if size == 2:
        assert not same(results[0][0].params.actor, results[1][0].params.actor)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("discrete", "joint"), ("continuous", "joint"), ("discrete", "world_model"), ("discrete", "actor_critic")],
)
def test_bfloat16_keeps_the_state_in_float32(kind, mode):
    agent = make_agent(kind, dataclasses.replace(CONFIG, precision="bfloat16"))
    before = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0))
    step = functools.partial(update, agent, mode=mode)
    after, metrics = jax.eval_shape(step, before, random_batch(kind, 0))
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(after)] == [(x.shape, x.dtype) for x in jax.tree.leaves(before)]
    assert {x.dtype for x in jax.tree.leaves((before.params, metrics))} == {jnp.dtype(jnp.float32)}


def test_unrolled_and_rematerialised_is_the_same_update(either):
    state, batch = either.state, either.batches[0]
    config = dataclasses.replace(CONFIG, observe_unroll=2, imagine_unroll=3, rematerialise=True)
    otherwise = make_agent(either.agent.spaces.actions[0].kind, config)
    one, one_metrics = either.step(state, batch)
    other, other_metrics = jit(functools.partial(update, otherwise))(state, batch)
    chex.assert_trees_all_close(one.params, other.params, rtol=1e-3, atol=2e-5)
    for name, value in one_metrics.items():
        np.testing.assert_allclose(other_metrics[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_rematerialising_computes_hidden_layers_again():
    """The world model's hidden layers are computed once more: more work, for less memory."""
    state = jax.eval_shape(functools.partial(init_train_state, make_agent("discrete")), jax.random.PRNGKey(0))

    def work(config: AgentConfig) -> int:
        step = functools.partial(update, make_agent("discrete", config))
        return matmul_flop(jax.make_jaxpr(step)(state, random_batch("discrete", 0)).jaxpr)

    assert 1.05 < work(dataclasses.replace(CONFIG, rematerialise=True)) / work(CONFIG) < 1.5


# -- What many updates do


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


def test_the_work_of_the_reference_update():
    """Size 1m, 16 windows of 64 rows, 15 imagined steps, a 4-vector and 2 actions: 15.2 GMACs.

    More than that means work done twice; less, that a start, a step or a network is missing.
    """
    agent = build_agent(resolve(Config()).agent, Spaces(obs=OBS, actions=(ActionSpec("discrete", 2),)))
    state = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((64, 16, *x.shape[2:]), x.dtype), random_batch("discrete", 0))
    batch = batch.replace(prev_action=jax.ShapeDtypeStruct((64, 16, 2), jnp.float32))
    program = jax.make_jaxpr(functools.partial(update, agent))(state, batch)
    assert matmul_flop(program.jaxpr) / 2e9 == pytest.approx(15.25, rel=0.01)
