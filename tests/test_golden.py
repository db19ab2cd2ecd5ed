"""Every formula against values that DreamerV3's own published code computed (see golden/README.md).

Stored arrays are batch-major, [batch, time] or [start, imagined step]; the project's are time-major.
"""

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamerjax.agent.actor_critic import actor_loss, critic_loss, dream_targets
from dreamerjax.agent.agent import build_agent, init_knobs
from dreamerjax.agent.optimizer import build_optimizer
from dreamerjax.agent.policy import categorical_actions, normal_actions
from dreamerjax.agent.replay_critic import replay_critic_loss, replay_returns
from dreamerjax.agent.world_model import image_loss, vector_loss
from dreamerjax.config import AgentConfig, Config, ModelConfig, OptimizerConfig, resolve
from dreamerjax.math.distributions import balanced_kl, categorical_entropy, categorical_kl, unimix
from dreamerjax.math.returns import lambda_returns
from dreamerjax.math.transforms import symexp_bins, two_hot_cross_entropy, two_hot_mean
from dreamerjax.nets.decoder import Decoder
from dreamerjax.nets.encoder import Encoder
from dreamerjax.nets.rssm import RSSM
from dreamerjax.types import ActionSpec, Batch, LatentState, ObsSpec, ReturnScale, Spaces, Trajectory

BINS = symexp_bins(255)
DISCOUNT, LAMBDA, ENTROPY_SCALE = 1 - 1 / 333, 0.95, 3e-4


@functools.cache
def stored():
    return dict(np.load(Path(__file__).parent / "golden" / "dreamerv3_golden.npz"))


def group(name):
    """The arrays of a group, by the rest of their names."""
    return SimpleNamespace(
        **{key.removeprefix(f"{name}/"): array for key, array in stored().items() if key.startswith(f"{name}/")}
    )


def time_major(array):
    return jnp.swapaxes(array, 0, 1)


def assert_golden(actual, expected, tolerance=1e-5):
    """Equal to within a share of the array's largest magnitude."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def agent():
    config = AgentConfig(model=ModelConfig(deter=16, hidden=8, groups=4, classes=4, blocks=4))
    spaces = Spaces(obs=(ObsSpec("vector", (4,)),), actions=(ActionSpec("discrete", 3),))
    return build_agent(resolve(Config(agent=config)).agent, spaces)


def test_two_hot():
    golden = group("twohot")
    np.testing.assert_allclose(BINS, golden.bins, rtol=1e-5)
    assert_golden(two_hot_cross_entropy(golden.logits, golden.target, BINS), golden.loss)
    assert_golden(two_hot_mean(golden.logits, BINS), golden.mean)


def test_latent():
    golden = group("latent")
    post, prior = unimix(golden.post_logits, 0.01), unimix(golden.prior_logits, 0.01)
    assert_golden(post, golden.mixed_log_probs_post)
    assert_golden(categorical_entropy(post).sum(-1), golden.entropy_post)
    assert_golden(categorical_kl(post, prior).sum(-1), golden.kl)
    losses = balanced_kl(golden.post_logits, golden.prior_logits, unimix_share=0.01, free_nats=1.0, gradient="clip")
    for loss in losses:
        assert_golden(loss, np.maximum(1, golden.kl))


def test_lambda_return():
    golden = group("lambda_return")
    reward, value, is_last, is_terminal = map(
        time_major, (golden.reward_BT, golden.value_BT, golden.is_last_BT, golden.is_terminal_BT)
    )
    expected = time_major(golden.returns_BT)
    discount, lambda_ = DISCOUNT * (1 - is_terminal[1:]), LAMBDA * (1 - is_last[1:])
    assert_golden(lambda_returns(reward[1:], discount, value[1:], value[-1], lambda_=lambda_), expected)
    assert_golden(
        replay_returns(reward, is_last, is_terminal, value, discount=DISCOUNT, return_lambda=LAMBDA), expected
    )


def imagined(agent):
    """A dream with the stored rewards and values, its targets, and the return scale after them."""
    golden = group("imagine")
    critic_logits, slow_critic_logits = map(time_major, (golden.critic_logits_NT, golden.slow_critic_logits_NT))
    dream = Trajectory(
        features=jnp.zeros((6, 7, 0)),  # neither features nor actions count for the targets
        action=jnp.zeros((5, 7, 0)),
        reward=time_major(golden.reward_NT),
        cont=time_major(golden.cont_NT),
        value=two_hot_mean(critic_logits, BINS),
        slow_value=two_hot_mean(slow_critic_logits, BINS),
    )
    start = ReturnScale(low=jnp.zeros(()), high=jnp.zeros(()))
    return critic_logits, *dream_targets(agent, dream, start, return_lambda=LAMBDA)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_imagine(agent, kind):
    golden = group(f"imagine_{kind}")
    critic_logits, targets, scale = imagined(agent)
    assert_golden(targets.returns, time_major(golden.returns))
    assert_golden(scale.low, golden.return_low)
    assert_golden(scale.high, golden.return_high)

    if kind == "discrete":
        policy = categorical_actions(time_major(golden.policy_logits)[:-1])
        action = jax.nn.one_hot(time_major(golden.action_index)[:-1], 3)
    else:
        policy = normal_actions(time_major(jnp.concatenate([golden.mean_raw, golden.std_raw], -1))[:-1])
        action = time_major(golden.action)[:-1]
    loss = actor_loss(policy, action, targets.advantage, targets.weight, entropy_scale=ENTROPY_SCALE)
    assert_golden(loss, time_major(golden.actor_loss))
    # Element by element as well: next to the largest losses the entropy term would be lost in the tolerance.
    np.testing.assert_allclose(loss, time_major(golden.actor_loss), rtol=1e-5)

    loss = critic_loss(critic_logits[:-1], targets.returns, targets.slow_value, targets.weight, BINS, slow_scale=1.0)
    assert_golden(loss, time_major(golden.critic_loss))


def test_replay_critic(agent):
    golden, imagine = group("replay_critic"), group("imagine")
    is_last, is_terminal = time_major(golden.is_last_BT), time_major(golden.is_terminal_BT)
    batch = Batch(
        obs={},
        prev_action=jnp.zeros((6, 7, 3)),
        reward=time_major(golden.reward_BT),
        is_first=jnp.zeros((6, 7), bool),
        is_last=is_last,
        is_terminal=is_terminal,
    )
    bootstrap = time_major(golden.bootstrap_BT)
    returns = replay_returns(batch.reward, is_last, is_terminal, bootstrap, discount=DISCOUNT, return_lambda=LAMBDA)
    assert_golden(returns, time_major(golden.returns))

    # The features hold the stored logits of both critics, and a critic's parameters are which of the two to read.
    read = SimpleNamespace(apply=lambda which, features, *, method: features[..., which, :])
    features = time_major(jnp.stack([imagine.critic_logits_NT, imagine.slow_critic_logits_NT], -2))
    agent = agent._replace(networks=agent.networks._replace(critic=read))
    loss = replay_critic_loss(agent, 0, 1, features, batch, bootstrap, init_knobs(agent.config))
    assert_golden(loss, time_major(golden.loss))


def test_optimizer():
    names = ("w", "b", "z")
    start, grads, after_each = (
        {name: stored()[f"optimizer/{part}/{name}"] for name in names}
        for part in ("param_start", "grads", "params_after_each")
    )
    optimizer = build_optimizer(OptimizerConfig(warmup_updates=10))

    def step(carry, grad):
        params, state = carry
        direction, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda x: -1e-2 * x, direction))
        return (params, state), params

    _, trained = jax.lax.scan(step, (start, optimizer.init(start)), grads)
    for name in names:
        assert_golden(trained[name], after_each[name], tolerance=1e-4)


def rssm_params(blocks):
    """The stored parameters in the project's layout."""
    param = {key.removeprefix("rssm/param/"): x for key, x in stored().items() if key.startswith("rssm/param/")}

    def dense(name):
        return {"kernel": param[f"{name}/kernel"], "bias": param[f"{name}/bias"]}

    def act(name):
        return {"norm": {"scale": param[f"{name}norm/scale"]}}

    # Each block's kernel reads its own slice of deter first, then what all blocks share: apart here, as two layers.
    hidden = param["dynhid0/kernel"]
    own = len(param["dynhid0/bias"]) // blocks
    shared = np.swapaxes(hidden[:, own:], 0, 1)
    gates = dense("dyngru")
    return {
        "gru": {
            **{f"{x}_in": dense(f"dynin{i}") for i, x in enumerate(("deter", "stoch", "action"))},
            **{f"{x}_act": act(f"dynin{i}") for i, x in enumerate(("deter", "stoch", "action"))},
            "own": {"kernel": hidden[:, :own]},
            "shared": {"kernel": shared.reshape(len(shared), -1), "bias": param["dynhid0/bias"]},
            "hidden_act": act("dynhid0"),
            "gates": gates | {"bias": gates["bias"].reshape(blocks, -1)},
        },
        "prior_mlp": {
            "dense0": dense("prior0"),
            "act0": act("prior0"),
            "dense1": dense("prior1"),
            "act1": act("prior1"),
        },
        "prior_out": dense("priorlogit"),
        "posterior_mlp": {"dense0": dense("obs0"), "act0": act("obs0")},
        "posterior_out": dense("obslogit"),
    }


def test_rssm(agent):
    golden = group("rssm")
    rssm = RSSM(agent.config.model, jnp.dtype(jnp.float32))
    blocks = agent.config.model.blocks
    variables = {"params": rssm_params(blocks)}
    state = LatentState(deter=jnp.asarray(golden.deter), stoch=jnp.asarray(golden.stoch))
    noise = jnp.zeros((5, 4))
    observe = functools.partial(rssm.apply, method=RSSM.observe_step)
    imagine = functools.partial(rssm.apply, method=RSSM.imagine_step)

    observed, post_logits = observe(variables, state, golden.action, golden.embed, jnp.zeros(5, bool), noise)
    assert_golden(observed.deter, golden.deter_next)
    assert_golden(post_logits, golden.post_logits)
    assert_golden(imagine(variables, state, golden.action, noise).deter, golden.deter_next)
    assert_golden(rssm.apply(variables, observed.deter, method=RSSM.prior), golden.prior_logits)

    # Nothing is left out of the mapping: the module has these parameters and no others.
    initial = jax.eval_shape(
        functools.partial(rssm.init, method=lambda rssm, *args: (rssm.observe_step(*args), rssm.prior(state.deter))),
        jax.random.key(0),
        state,
        golden.action,
        golden.embed,
        jnp.zeros(5, bool),
        noise,
    )
    chex.assert_trees_all_equal_shapes(initial["params"], variables["params"])


def vision_params():
    """The stored parameters of encoder and decoder in the project's layout."""
    param = {key.removeprefix("vision/param/"): x for key, x in stored().items() if key.startswith("vision/param/")}

    def layer(name):
        return {"kernel": param[f"{name}/kernel"], "bias": param[f"{name}/bias"]}

    def act(name):
        return {"norm": {"scale": param[f"{name}/scale"]}}

    blocks = layer("dec/sp0")
    # Stored is what reads [stoch, deter]; the project's features are [deter, stoch].
    reads_features = layer("dec/mlp/linear0")
    reads_features["kernel"] = np.roll(reads_features["kernel"], 16, axis=0)
    encoder = {
        "vectors": {f"dense{i}": layer(f"enc/mlp{i}") for i in range(2)}
        | {f"act{i}": act(f"enc/mlp{i}norm") for i in range(2)},
        "images": {f"conv{i}": layer(f"enc/cnn{i}") for i in range(3)}
        | {f"act{i}": act(f"enc/cnn{i}norm") for i in range(3)},
    }
    decoder = {
        "vectors": {
            "dense0": reads_features,
            "act0": act("dec/mlp/norm0"),
            "dense1": layer("dec/mlp/linear1"),
            "act1": act("dec/mlp/norm1"),
        },
        "out_vector": layer("dec/vec/vec/pred"),
        "images": {
            "deter": blocks | {"bias": blocks["bias"].reshape(len(blocks["kernel"]), -1)},
            "stoch_in": layer("dec/sp1"),
            "stoch_act": act("dec/sp1norm"),
            "stoch_out": layer("dec/sp2"),
            "act": act("dec/spnorm"),
            "out": layer("dec/imgout"),
        }
        | {f"conv{i}": layer(f"dec/conv{i}") for i in range(2)}
        | {f"act{i}": act(f"dec/conv{i}norm") for i in range(2)},
    }
    return {"params": encoder}, {"params": decoder}


def test_vision(agent):
    golden = group("vision")
    config = dataclasses.replace(agent.config.model, hidden=12, depth=4, encoder_layers=2, decoder_layers=2)
    specs = (ObsSpec("vector", (5,)), ObsSpec("image", (32, 32, 3)))
    obs = {"vector": golden.vector, "image": golden.image}
    features = jnp.concatenate([golden.deter, golden.stoch.reshape(3, -1)], -1)
    encoder, decoder = (part(specs, config, jnp.dtype(jnp.float32), multiples=(2, 3, 4)) for part in (Encoder, Decoder))
    encoder_params, decoder_params = vision_params()

    assert_golden(encoder.apply(encoder_params, obs), golden.embed)
    decoded = decoder.apply(decoder_params, features)
    assert_golden(decoded["image"], golden.decoded_image)
    assert_golden(decoded["vector"], golden.decoded_vector_symlog)
    assert_golden(image_loss(decoded["image"], golden.image), golden.image_loss)
    assert_golden(vector_loss(decoded["vector"], golden.vector), golden.vector_loss)

    # Nothing is left out of the mapping: the modules have these parameters and no others.
    for module, inputs, params in ((encoder, obs, encoder_params), (decoder, features, decoder_params)):
        chex.assert_trees_all_equal_shapes(jax.eval_shape(module.init, jax.random.key(0), inputs), params)
