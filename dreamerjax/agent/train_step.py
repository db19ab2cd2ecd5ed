"""One update of all parts: world model, actor, critic, slow critic, return scale.

`update_gradients` calls the stages of an update. `bench` times the same functions.

    world_model_forward       filter the batch into latent states; the world model's loss
    imagine                   trajectories from all latent states (agent/imagine.py)
    actor_critic_gradients    targets of the trajectories; gradients of actor and critic
    replay_gradients          the critic's loss on the batch; its gradients of critic and features
    world_model_gradients     backward pass of `world_model_forward`
    apply_gradients           updates the parameters and the slow critic
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dreamerjax.agent.actor_critic import ActorCritic, actor_critic_grad, dream_targets
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.metrics import dream_metrics, entropy_share, gradient_norms
from dreamerjax.agent.optimizer import schedule_shape
from dreamerjax.agent.replay_critic import replay_critic_loss
from dreamerjax.agent.world_model import observe, world_model_loss
from dreamerjax.nets.rssm import latent_features, merge_time, to_stored
from dreamerjax.types import (
    Array,
    Batch,
    LatentState,
    Metrics,
    PRNGKey,
    ReturnScale,
    StoredLatent,
    TrainState,
    Trajectory,
    Variables,
)

Mode = Literal["joint", "world_model", "actor_critic"]


class WorldModelForward(NamedTuple):
    """Result of the world model's forward pass."""

    loss: Array  # []
    features: Array  # [T, B, F]
    latents: LatentState  # [T, ...] of B sequences
    metrics: Metrics
    backward: Callable[[tuple[Array, Array]], tuple[Variables]]  # gradients of (loss, features) -> of the parameters


class ActorCriticGradients(NamedTuple):
    """What imagined trajectories teach actor and critic."""

    grads: ActorCritic
    returns: Array  # [H, N] lambda returns
    return_scale: ReturnScale  # the next
    metrics: Metrics


class ReplayGradients(NamedTuple):
    """What replayed rows teach the critic, and through the features the world model."""

    critic: Variables
    features: Array  # [T, B, F]
    loss: Array  # []


class Gradients(NamedTuple):
    """All gradients of a batch, before the optimizer."""

    grads: dict[str, Variables]  # by field of Params, only those that the mode trains
    return_scale: ReturnScale  # the next
    latents: LatentState  # [T, ...] of the batch
    metrics: Metrics
    key: PRNGKey  # of the next update


def train_step(
    agent: Agent, state: TrainState, batch: Batch, *, mode: Mode = "joint"
) -> tuple[TrainState, Metrics, StoredLatent | None]:
    """Makes one update. Pure; jit it with `agent` and `mode` bound, and donate the state.

    Args:
        agent: the static parts.
        state: all that changes; its key is consumed and replaced.
        batch: [T, B, ...].
        mode: "joint" trains everything; "world_model" trains only the world model; "actor_critic" actor and critic on
            trajectories that a frozen world model imagines.

    Returns:
        The next state; the metrics, scalars; and the latent states [T, B, ...] of the batch for the replay to keep, if
        the batch has a context (else None).
    """
    gradients = update_gradients(agent, state, batch, mode)
    state = apply_gradients(agent, state, gradients.grads)
    state = dataclasses.replace(state, step=state.step + 1, return_scale=gradients.return_scale, key=gradients.key)
    return state, gradients.metrics, None if batch.context is None else to_stored(gradients.latents)


def train_steps(
    agent: Agent, state: TrainState, batches: Batch, *, mode: Mode = "joint"
) -> tuple[TrainState, Metrics, StoredLatent | None]:
    """Makes U updates in one dispatch, on batches [U, T, B, ...].

    Returns metrics as means over the U updates and latent states as [U, T, B, ...]; see `train_step`.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, tuple[Metrics, StoredLatent | None]]:
        state, metrics, latents = train_step(agent, state, batch, mode=mode)
        return state, (metrics, latents)

    state, (metrics, latents) = jax.lax.scan(step, state, batches)
    return state, jax.tree.map(lambda x: x.mean(0), metrics), latents


def update_gradients(agent: Agent, state: TrainState, batch: Batch, mode: Mode = "joint") -> Gradients:
    """Observes the batch, imagines from every row of it, and differentiates all losses that follow.

    Args:
        agent: the static parts.
        state: its key is consumed.
        batch: [T, B, ...].
        mode: see `train_step`.
    """
    observe_key, imagine_key, next_key = jax.random.split(state.key, 3)
    world_model = world_model_forward(agent, state, batch, observe_key)
    if mode == "world_model":
        grads = {"world_model": world_model_gradients(world_model, jnp.zeros_like(world_model.features))}
        metrics = world_model.metrics | gradient_norms(grads)
        return Gradients(grads, state.return_scale, world_model.latents, metrics, next_key)

    # Imagination passes no gradient, so it runs outside of every differentiated function.
    starts = merge_time(world_model.latents)
    dream = imagine(agent, state.params, state.slow_critic, starts, imagine_key, knobs=state.knobs)
    actor_critic = actor_critic_gradients(agent, state, dream)
    replayed = replay_gradients(agent, state, world_model.features, batch, actor_critic.returns)
    grads = {
        "actor": actor_critic.grads.actor,
        "critic": jax.tree.map(jnp.add, actor_critic.grads.critic, replayed.critic),
    }
    if mode == "joint":
        grads["world_model"] = world_model_gradients(world_model, replayed.features)
    metrics = world_model.metrics | gradient_norms(grads) | actor_critic.metrics
    metrics["replay_critic_loss"] = replayed.loss
    return Gradients(grads, actor_critic.return_scale, world_model.latents, metrics, next_key)


def world_model_forward(agent: Agent, state: TrainState, batch: Batch, key: PRNGKey) -> WorldModelForward:
    """Filters the batch [T, B, ...] into latent states and computes the world model's loss. The key is consumed.

    `backward` takes two gradients: of the loss, and of the features (from the critic's loss on replayed rows).
    """

    def forward(params: Variables) -> tuple[tuple[Array, Array], tuple[LatentState, Metrics]]:
        posterior = observe(agent, params, batch, key)
        loss, metrics = world_model_loss(agent, params, batch, posterior, discount=state.knobs.discount)
        return (loss, latent_features(posterior.states)), (posterior.states, metrics)

    (loss, features), backward, (latents, metrics) = jax.vjp(forward, state.params.world_model, has_aux=True)
    return WorldModelForward(loss, features, latents, metrics, backward)


def world_model_gradients(forward: WorldModelForward, features_grad: Array) -> Variables:
    """Gradient of the world model's parameters, given that of the features [T, B, F] from other losses."""
    return forward.backward((jnp.ones_like(forward.loss), features_grad))[0]


def actor_critic_gradients(agent: Agent, state: TrainState, dream: Trajectory) -> ActorCriticGradients:
    """Targets from imagined trajectories [H, N, ...], and the gradients of actor and critic towards them."""
    targets, scale = dream_targets(agent, dream, state.return_scale, return_lambda=state.knobs.return_lambda)
    entropy_scale = state.knobs.entropy_scale * _entropy_shape(agent, state)
    params = ActorCritic(state.params.actor, state.params.critic)
    grads, metrics = actor_critic_grad(agent, params, dream, targets, entropy_scale=entropy_scale)
    metrics |= dream_metrics(dream, targets, scale) | {
        "actor_entropy_share": entropy_share(agent, metrics["actor_entropy"]),
        "entropy_scale": entropy_scale,
    }
    return ActorCriticGradients(grads, targets.returns, scale, metrics)


def replay_gradients(agent: Agent, state: TrainState, features: Array, batch: Batch, returns: Array) -> ReplayGradients:
    """Gradients of the critic's loss on replayed rows.

    Args:
        agent: the static parts.
        state: critic, slow critic and knobs.
        features: [T, B, F] of the posterior.
        batch: [T, B, ...].
        returns: [H, N] of the trajectories that start in every row; the first ones are the bootstrap.
    """
    bootstrap = returns[0].reshape(batch.reward.shape)  # [N] -> [T, B], the inverse of `merge_time`

    def loss(critic: Variables, features: Array) -> Array:
        loss = replay_critic_loss(agent, critic, state.slow_critic, features, batch, bootstrap, state.knobs)
        return agent.config.critic.replay_scale * loss.mean()

    value, (critic_grad, features_grad) = jax.value_and_grad(loss, argnums=(0, 1))(state.params.critic, features)
    return ReplayGradients(critic_grad, features_grad, value)


def apply_gradients(agent: Agent, state: TrainState, grads: dict[str, Variables]) -> TrainState:
    """The optimizer's part of an update.

    Args:
        agent: the static parts.
        state: before the update.
        grads: by field of `Params`, of the networks that are trained.

    Returns:
        The state with new parameters and optimizer states of those networks, and with a slow critic that has moved
        towards the critic if that is one of them.
    """
    params, opt_state, slow_critic = state.params, state.opt_state, state.slow_critic
    for name, grad in grads.items():
        direction, new_opt_state = agent.optimizer.update(grad, getattr(opt_state, name), getattr(params, name))
        learning_rate = getattr(state.knobs, f"{name}_learning_rate")
        updates = jax.tree.map(lambda x, rate=learning_rate: -rate * x, direction)
        params = dataclasses.replace(params, **{name: optax.apply_updates(getattr(params, name), updates)})
        opt_state = dataclasses.replace(opt_state, **{name: new_opt_state})
    if "critic" in grads:
        rate = agent.config.critic.slow_rate
        slow_critic = jax.tree.map(lambda slow, fast: (1 - rate) * slow + rate * fast, slow_critic, params.critic)
    return dataclasses.replace(state, params=params, opt_state=opt_state, slow_critic=slow_critic)


def _entropy_shape(agent: Agent, state: TrainState) -> Array:
    config = agent.config.actor
    return schedule_shape(
        state.step,
        config.entropy_schedule,
        final_fraction=config.entropy_final_fraction,
        decay_updates=config.entropy_decay_updates,
    )
