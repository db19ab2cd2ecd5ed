"""Losses of the world model on replayed rows (section "World model learning")."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.math.distributions import (
    balanced_kl,
    bernoulli_cross_entropy,
    categorical_entropy,
    categorical_kl,
    unimix,
)
from dreamerjax.math.transforms import symlog, two_hot_cross_entropy
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import (
    BlockState,
    from_stored,
    in_blocks,
    initial_latent,
    latent_features,
    latent_noise,
    out_of_blocks,
)
from dreamerjax.types import Array, Batch, Metrics, ObsSpec, Posterior, PRNGKey, Variables


def observe(agent: Agent, params: Variables, batch: Batch, key: PRNGKey) -> Posterior:
    """Filters a batch of rows into latent states, one scan over T.

    Args:
        agent: the static parts.
        params: of the world model.
        batch: [T, B, ...]; a window starts from its context, or from the zero state.
        key: consumed.

    Returns:
        States and logits of all T steps (see `Posterior` for the shapes).
    """
    assert_batch(agent, batch)
    model = agent.networks.world_model
    length, size = batch.reward.shape
    observe_step = _kept_or_recomputed(agent, WorldModel.observe_in_blocks)
    embed = _kept_or_recomputed(agent, WorldModel.encode)(params, batch.obs)

    def step(state: BlockState, row: tuple) -> tuple[BlockState, tuple[BlockState, Array]]:
        state, logits = observe_step(params, state, *row)
        return state, (state, logits)

    if batch.context is None:
        start = initial_latent(size, agent.config.model, model.dtype)
    else:
        start = from_stored(batch.context, agent.config.model, model.dtype)
    noise = latent_noise(key, length, size, config=agent.config.model)
    rows = (batch.prev_action, embed, batch.is_first, noise)
    start = in_blocks(start, agent.config.model.blocks)
    states, post_logits = jax.lax.scan(step, start, rows, unroll=agent.config.observe_unroll)[1]
    states = out_of_blocks(states)
    # The prior is not needed inside the recurrence: all T at once are one large matmul.
    prior_logits = apply(model, params, states.deter, method=WorldModel.prior)
    return Posterior(states=states, post_logits=post_logits, prior_logits=prior_logits)


def assert_batch(agent: Agent, batch: Batch) -> None:
    """Checks the shapes of replayed rows [T, B, ...] against the agent's spaces, while tracing."""
    lead = batch.reward.shape
    chex.assert_rank(batch.reward, 2)
    chex.assert_shape([batch.is_first, batch.is_last, batch.is_terminal], lead)
    chex.assert_shape(batch.prev_action, (*lead, agent.spaces.action_size))
    for spec in agent.spaces.obs:
        chex.assert_shape(batch.obs[spec.name], (*lead, *spec.shape))


def _kept_or_recomputed(agent: Agent, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the world model as a function (parameters, inputs...) -> outputs.

    The backward pass needs its hidden layers. They are kept in memory, or with `AgentConfig.rematerialise` computed
    again, so that they take no memory while the agent imagines.
    """

    def run(params: Variables, *inputs: Any) -> Any:
        return apply(agent.networks.world_model, params, *inputs, method=method)

    return jax.checkpoint(run) if agent.config.rematerialise else run


def vector_loss(prediction: Array, target: Array) -> Array:
    """Squared error [...] of a prediction [..., size] in symlog space with a raw target, summed over the vector."""
    return jnp.square(prediction - symlog(target)).sum(-1)


def image_loss(prediction: Array, target: Array) -> Array:
    """Squared error [...] of [..., height, width, channels] in 0 ... 1 with an image in 0 ... 255, summed over it."""
    return jnp.square(prediction - target.astype(jnp.float32) / 255).sum((-3, -2, -1))


def integer_loss(logits: Array, target: Array) -> Array:
    """Cross entropy [T, B] of logits [T, B, ..., classes] with integers [T, B, ...], summed over these."""
    log_probs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probs, target[..., None].astype(jnp.int32), -1)
    return -chosen.reshape(*target.shape[:2], -1).sum(-1)


def observation_loss(spec: ObsSpec, prediction: Array, target: Array) -> Array:
    """The loss [T, B] that suits the kind of observation."""
    if spec.classes:
        return integer_loss(prediction, target)
    return (image_loss if spec.is_image else vector_loss)(prediction, target)


def posterior_kl(agent: Agent, post_logits: Array, prior_logits: Array) -> Array:
    """Surprise: KL(posterior || prior) [...] in nats, of logits [..., S, K] of all latent groups."""
    share = agent.config.model.unimix
    return categorical_kl(unimix(post_logits, share), unimix(prior_logits, share)).sum(-1)


def world_model_loss(
    agent: Agent, params: Variables, batch: Batch, posterior: Posterior, *, discount: Array
) -> tuple[Array, Metrics]:
    """Reconstruction, reward, continue, dynamics and representation loss, each a mean over [T, B], weighted and added.

    The weights are the `*_scale` of `WorldModelConfig`: 1, but 0.1 for the representation, as published.

    Args:
        agent: the static parts.
        params: of the world model.
        batch: [T, B, ...].
        posterior: of `observe` with the same parameters and batch.
        discount: [] folded into the target of the continue head, so that its probability is the dream's discount.

    Returns:
        The loss [] and the metrics.
    """
    chex.assert_equal_shape_prefix([batch.reward, posterior.post_logits, posterior.prior_logits], 2)
    config, model = agent.config.world_model, agent.networks.world_model
    features = latent_features(posterior.states)

    decoded = _kept_or_recomputed(agent, WorldModel.decode)(params, features)
    errors = [observation_loss(spec, decoded[spec.name], batch.obs[spec.name]) for spec in agent.spaces.obs]
    reward = two_hot_cross_entropy(apply(model, params, features, method=WorldModel.reward), batch.reward, agent.bins)
    cont_target = (1 - batch.is_terminal.astype(jnp.float32)) * discount
    cont = bernoulli_cross_entropy(apply(model, params, features, method=WorldModel.cont), cont_target)
    dynamics, representation = balanced_kl(
        posterior.post_logits,
        posterior.prior_logits,
        unimix_share=agent.config.model.unimix,
        free_nats=config.free_nats,
        gradient=config.free_nats_gradient,
    )

    losses = {
        "reconstruction": (config.reconstruction_scale, jnp.stack(errors).sum(0)),
        "reward": (config.reward_scale, reward),
        "cont": (config.cont_scale, cont),
        "dynamics": (config.dynamics_scale, dynamics),
        "representation": (config.representation_scale, representation),
    }
    loss = jnp.stack([scale * jnp.mean(value) for scale, value in losses.values()]).sum()
    metrics = {f"{name}_loss": jnp.mean(value) for name, (_, value) in losses.items()}
    post, prior = (
        unimix(logits, agent.config.model.unimix) for logits in (posterior.post_logits, posterior.prior_logits)
    )
    kl = posterior_kl(agent, posterior.post_logits, posterior.prior_logits)
    metrics |= {
        "kl": kl.mean(),
        "free_nats_share": (kl < config.free_nats).mean(),
        "posterior_entropy": categorical_entropy(post).sum(-1).mean(),
        "prior_entropy": categorical_entropy(prior).sum(-1).mean(),
    }
    return loss, metrics
