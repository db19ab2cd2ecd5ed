"""The networks: how many parameters they have, how these start, and what each layer computes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit
from scipy import stats
from scipy.linalg import block_diag

from dreamerjax.config import AgentConfig, Config, ModelConfig, resolve
from dreamerjax.nets.layers import BlockDense, from_blocks, to_blocks, truncated_normal
from dreamerjax.nets.networks import Networks, WorldModel, build_networks, init_params
from dreamerjax.nets.rssm import BlockGRU, BlockState, initial_latent, latent_features
from dreamerjax.types import ActionSpec, ObsSpec, Params, Spaces
from tests.tiny import MODEL

FLOAT32, BFLOAT16 = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
CARTPOLE = Spaces(obs=(ObsSpec("state", (4,)),), actions=(ActionSpec("discrete", 2),))
WALKER = Spaces(
    obs=(ObsSpec("orientations", (14,)), ObsSpec("height", (1,)), ObsSpec("velocity", (9,))),
    actions=(ActionSpec("continuous", 6),),
)
WALKER_SEEN = Spaces(obs=(ObsSpec("image", (64, 64, 3)),), actions=(ActionSpec("continuous", 6),))
SMALL = dataclasses.replace(MODEL, deter=128, hidden=64, groups=8, classes=8, prior_layers=1)
# sd of the normal before it is truncated at +-2 sd, times sqrt(fan_in)
SD = 1.1368
# size -> deter, hidden, classes, depth, as published; always 32 groups and 8 blocks
PUBLISHED = {
    "1m": (512, 64, 4, 4),
    "12m": (2048, 256, 16, 16),
    "25m": (3072, 384, 24, 24),
    "50m": (4096, 512, 32, 32),
    "100m": (6144, 768, 48, 48),
    "200m": (8192, 1024, 64, 64),
    "400m": (12288, 1536, 96, 96),
}


def networks_of_size(size, spaces: Spaces) -> Networks:
    model = resolve(Config(agent=AgentConfig(model=ModelConfig(size=size)))).agent.model
    return build_networks(model, spaces, FLOAT32)


def shapes_of(networks: Networks) -> Params:
    """The parameters' shapes; nothing is allocated."""
    return jax.eval_shape(lambda key: init_params(networks, key), jax.random.PRNGKey(0))


def count(shapes) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def by_path(params) -> dict[str, np.ndarray]:
    """Path such as "world_model/params/rssm/gru/own/kernel" -> array."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def small() -> tuple[Networks, Params]:
    networks = build_networks(SMALL, WALKER, FLOAT32)
    return networks, jit(lambda key: init_params(networks, key))(jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    ("size", "spaces", "expected"),
    [("1m", CARTPOLE, 637_381), ("1m", WALKER, 640_867), ("12m", WALKER_SEEN, 10_494_158)],
)
def test_the_number_of_parameters_is_the_published_one(size, spaces, expected):
    assert count(shapes_of(networks_of_size(size, spaces))) == expected


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_published_size_builds(size):
    deter, hidden, classes, depth = PUBLISHED[size]
    networks = networks_of_size(size, CARTPOLE)
    model = networks.world_model.config
    assert (model.deter, model.hidden, model.classes, model.depth) == (deter, hidden, classes, depth)
    assert (model.groups, model.blocks, model.bins) == (32, 8, 255)

    params = shapes_of(networks)
    state = initial_latent(1, model, FLOAT32)
    is_first, noise = jnp.zeros(1, bool), jnp.zeros((1, 32))

    def step(params):
        apply = networks.world_model.apply
        embed = apply(params.world_model, {"state": jnp.zeros((1, 4))}, method=WorldModel.encode)
        action = jnp.zeros((1, 2))
        following, logits = apply(
            params.world_model, state, action, embed, is_first, noise, method=WorldModel.observe_step
        )
        return embed, following, latent_features(following), logits

    embed, following, features, logits = jax.eval_shape(step, params)
    assert embed.shape == (1, hidden)
    assert features.shape == (1, deter + 32 * classes)
    assert following.stoch.shape == logits.shape == (1, 32, classes)


def test_parameters_grow_with_the_size():
    counts = [count(shapes_of(networks_of_size(size, CARTPOLE))) for size in ("300k", *PUBLISHED)]
    assert counts == sorted(counts)
    assert len(set(counts)) == len(counts)


@pytest.mark.parametrize(("scale", "fan_in"), [(1.0, None), (1.0, 400), (0.01, None)])
def test_the_initialiser_is_a_normal_truncated_at_two_standard_deviations(scale, fan_in):
    weights = np.asarray(truncated_normal(scale, fan_in)(jax.random.PRNGKey(3), (100, 500)), np.float64).ravel()
    sd = scale * SD / math.sqrt(fan_in or 100)
    assert stats.kstest(weights, stats.truncnorm(-2, 2, scale=sd).cdf).pvalue > 1e-3
    assert 1.98 * sd < np.abs(weights).max() <= 2 * sd * (1 + 1e-4)
    # The truncation takes away just what 1.1368 adds: the variance is scale^2 / fan_in.
    np.testing.assert_allclose(weights.std(), scale / math.sqrt(fan_in or 100), rtol=0.02)


def test_every_kernel_starts_with_the_variance_of_its_fan_in(small):
    everything = SMALL.deter + SMALL.blocks * 3 * SMALL.hidden  # what the G blocks of the GRU read, all together
    fan_in_of_blocks = {"gru/own": everything, "gru/shared": everything, "gru/gates": SMALL.deter}
    kernels = {path: leaf for path, leaf in by_path(small[1]).items() if path.endswith("/kernel")}
    assert all(any(part in path for path in kernels) for part in fan_in_of_blocks)
    for path, kernel in kernels.items():
        fan_in = next((n for part, n in fan_in_of_blocks.items() if part in path), kernel.shape[-2])
        starts_at_zero = path.startswith("critic") or "reward" in path
        scale = 1.0
        if path.endswith("/out/kernel"):
            scale = 0.01 if path.startswith("actor") else 0.0 if starts_at_zero else 1.0
        bound = 2 * scale * SD / math.sqrt(fan_in)
        assert np.abs(kernel).max() <= bound * (1 + 1e-4), path
        # The sample sd of n numbers is off by about 1 / sqrt(2 n) of itself.
        expected = scale / math.sqrt(fan_in)
        np.testing.assert_allclose(kernel.std(), expected, rtol=5 / math.sqrt(2 * kernel.size), err_msg=path)


def test_biases_start_at_zero_and_norms_at_one(small):
    for path, leaf in by_path(small[1]).items():
        name = path.rsplit("/", 1)[-1]
        assert name in ("kernel", "bias", "scale"), path
        if name != "kernel":
            np.testing.assert_array_equal(leaf, 0.0 if name == "bias" else 1.0, err_msg=path)


def test_reward_and_critic_start_at_exactly_zero_and_the_actor_nearly_uniform(small):
    networks, params = small
    features = jax.random.normal(jax.random.PRNGKey(1), (50, SMALL.deter + SMALL.groups * SMALL.classes))
    reward = networks.world_model.apply(params.world_model, features, method=WorldModel.reward)
    np.testing.assert_array_equal(reward, np.zeros((50, SMALL.bins)))
    np.testing.assert_array_equal(networks.critic.apply(params.critic, features), np.zeros((50, SMALL.bins)))
    policy = np.asarray(networks.actor.apply(params.actor, features))
    assert policy.shape == (50, 12)  # 6 means beside 6 standard deviations
    assert 0 < np.abs(policy).max() < 0.1


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_blocks_are_slices_of_the_vector(lead):
    """Three rows of 4 blocks of 3 numbers; a stack of steps may stand in front."""
    x = np.random.default_rng(0).normal(size=(*lead, 12))
    blocks = to_blocks(jnp.asarray(x, jnp.float32), 4)
    assert blocks.shape == (*lead[:-1], 4, 3, 3)
    for g in range(4):
        np.testing.assert_allclose(blocks[..., g, :, :], x[..., 3 * g : 3 * g + 3], rtol=1e-6)
    np.testing.assert_allclose(from_blocks(blocks), x, rtol=1e-6)


def test_block_dense_is_a_dense_block_diagonal_matrix():
    layer = BlockDense(features=5, dtype=FLOAT32)
    x = jax.random.normal(jax.random.PRNGKey(0), (3, 12))
    shapes = jax.eval_shape(layer.init, jax.random.PRNGKey(1), to_blocks(x, 4))["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)
    matrix = block_diag(*np.asarray(params["kernel"], np.float64))
    assert matrix.shape == (12, 20)
    expected = np.asarray(x, np.float64) @ matrix + np.asarray(params["bias"], np.float64).ravel()
    y = from_blocks(layer.apply({"params": params}, to_blocks(x, 4)))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def numpy_block_gru(params: dict, deter: np.ndarray, stoch: np.ndarray, action: np.ndarray, blocks: int) -> np.ndarray:
    """The recurrence in float64, one block at a time, each with its whole kernel."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    units = deter.shape[-1] // blocks

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def rms_silu(x, norm):
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * norm["norm"]["scale"]
        return x * sigmoid(x)

    def embed(name, x):
        layer = params[f"{name}_in"]
        return rms_silu(x @ layer["kernel"] + layer["bias"], params[f"{name}_act"])

    action = action / np.maximum(1, np.abs(action))
    shared = [embed("deter", deter), embed("stoch", stoch.reshape(len(stoch), -1)), embed("action", action)]
    hidden = np.empty_like(deter)
    for g in range(blocks):
        own = slice(g * units, (g + 1) * units)
        kernel = np.concatenate([params["own"]["kernel"][g], params["shared"]["kernel"][:, own]])
        hidden[:, own] = np.concatenate([deter[:, own], *shared], -1) @ kernel + params["shared"]["bias"][own]
    hidden = rms_silu(hidden, params["hidden_act"])
    following = np.empty_like(deter)
    for g in range(blocks):
        own = slice(g * units, (g + 1) * units)
        gates = hidden[:, own] @ params["gates"]["kernel"][g] + params["gates"]["bias"][g]
        reset, candidate, update = gates[:, :units], gates[:, units : 2 * units], gates[:, 2 * units :]
        candidate, update = np.tanh(sigmoid(reset) * candidate), sigmoid(update - 1)
        following[:, own] = update * candidate + (1 - update) * deter[:, own]
    return following


def test_the_block_gru_equals_a_plain_float64_implementation():
    model = ModelConfig(deter=24, hidden=8, groups=4, classes=4, blocks=4)
    gru = BlockGRU(model, FLOAT32)
    keys = jax.random.split(jax.random.PRNGKey(5), 4)
    deter, stoch = jax.random.normal(keys[0], (6, 24)), jax.random.uniform(keys[1], (6, 4, 4))
    action = 3 * jax.random.normal(keys[2], (6, 2))  # some of it beyond +-1
    state = BlockState(to_blocks(deter, 4), stoch)
    shapes = jax.eval_shape(gru.init, keys[3], state, action)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), shapes)

    actual = from_blocks(jit(gru.apply)({"params": params}, state, action))
    expected = numpy_block_gru(params, *(np.asarray(x, np.float64) for x in (deter, stoch, action)), blocks=4)
    assert np.abs(expected - np.asarray(deter)).mean() > 0.1  # it did something
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_but_keeps_parameters_and_outputs_in_float32(small):
    networks = build_networks(SMALL, WALKER, BFLOAT16)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(networks))} == {FLOAT32}
    obs = {spec.name: jnp.ones((2, *spec.shape)) for spec in WALKER.obs}
    action, is_first = 0.3 * jnp.ones((2, 6)), jnp.zeros(2, bool)

    def observe(networks: Networks, params: Params):
        dtype, bind = networks.world_model.dtype, networks.world_model.bind(params.world_model)
        state = jax.tree.map(lambda x: x + jnp.asarray(0.5, x.dtype), initial_latent(2, SMALL, dtype))
        return bind.observe_step(state, action, bind.encode(obs), is_first, jnp.zeros((2, SMALL.groups)))

    def outputs(networks: Networks, params: Params):
        state, post_logits = observe(networks, params)
        bind = networks.world_model.bind(params.world_model)
        features = latent_features(state)
        heads = [bind.reward(features), bind.cont(features), *bind.decode(features).values()]
        heads += [networks.actor.apply(params.actor, features), networks.critic.apply(params.critic, features)]
        return state, [post_logits, bind.prior(state.deter), *heads]

    state, logits = jax.eval_shape(lambda params: outputs(networks, params), small[1])
    assert state.deter.dtype == state.stoch.dtype == BFLOAT16
    assert {output.dtype for output in logits} == {FLOAT32}
    # The numbers are those of float32 to the precision of bfloat16 (8 bits), and no better.
    deter, exact = (
        np.asarray(jit(lambda params, nets=nets: observe(nets, params)[0].deter)(small[1]), np.float32)
        for nets in (networks, small[0])
    )
    np.testing.assert_allclose(deter, exact, atol=0.03)
    assert np.abs(deter - exact).max() > 1e-4
