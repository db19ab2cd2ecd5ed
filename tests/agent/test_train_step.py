"""What one update changes, which loss trains what, and the work of an update."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.agent.train_step import train_step
from dreamerjax.bench.flops import matmul_flop
from dreamerjax.config import Config, resolve
from dreamerjax.types import ActionSpec, Spaces
from tests.agent.train_step_setup import CONFIG, OBS, PARTS, make_knobs, random_batch, same, update


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
