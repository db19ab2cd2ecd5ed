"""One update of everything: world model, actor, critic, slow critic, return scale."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dreamerjax.agent.actor_critic import actor_critic_grad, dream_targets, imagine, replay_critic_loss
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.diagnostics import entropy_share, module_grad_norms
from dreamerjax.agent.optimizer import schedule_shape
from dreamerjax.agent.world_model import world_model_loss
from dreamerjax.math.scaling import return_range
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
    Variables,
)

Mode = Literal["joint", "world_model", "actor_critic"]


class Gradients(NamedTuple):
    """What a batch comes to before the optimizer sees it."""

    grads: dict[str, Variables]  # by field of Params, of those alone that the mode trains
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
        mode: "joint" trains everything; "world_model" that alone; "actor_critic" actor and critic in the dreams of
            a frozen world model.

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

    Metrics come back as means over the U updates, latent states as [U, T, B, ...]; see `train_step`.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, tuple[Metrics, StoredLatent | None]]:
        state, metrics, latents = train_step(agent, state, batch, mode=mode)
        return state, (metrics, latents)

    state, (metrics, latents) = jax.lax.scan(step, state, batches)
    return state, jax.tree.map(lambda x: x.mean(0), metrics), latents


def apply_gradients(agent: Agent, state: TrainState, grads: dict[str, Variables]) -> TrainState:
    """The optimizer's part of an update.

    Args:
        agent: the static parts.
        state: before the update.
        grads: by field of `Params`, of the networks that are trained.

    Returns:
        The state with new parameters and optimizer states of those networks, and a slow critic that has followed the
        critic if that is one of them.
    """
    params, opt_state, slow_critic = state.params, state.opt_state, state.slow_critic
    for name, grad in grads.items():
        direction, new_opt_state = agent.optimizer.update(grad, getattr(opt_state, name), getattr(params, name))
        learning_rate = getattr(state.knobs, f"{name}_learning_rate")
        updates = jax.tree.map(lambda x, rate=learning_rate: -rate * x, direction)
        params = dataclasses.replace(params, **{name: optax.apply_updates(getattr(params, name), updates)})
        opt_state = dataclasses.replace(opt_state, **{name: new_opt_state})
    if "critic" in grads:
        slow_critic = _moving_average(slow_critic, params.critic, agent.config.critic.slow_rate)
    return dataclasses.replace(state, params=params, opt_state=opt_state, slow_critic=slow_critic)


def _moving_average(slow: Variables, fast: Variables, rate: float) -> Variables:
    return jax.tree.map(lambda slow, fast: (1 - rate) * slow + rate * fast, slow, fast)


def update_gradients(agent: Agent, state: TrainState, batch: Batch, mode: Mode = "joint") -> Gradients:
    """Observes the batch, dreams from every row of it, and differentiates all losses that follow.

    Args:
        agent: the static parts.
        state: its key is consumed.
        batch: [T, B, ...].
        mode: see `train_step`.
    """
    observe_key, dream_key, next_key = jax.random.split(state.key, 3)
    params, knobs = state.params, state.knobs

    # Two outputs, because two gradients go back: the loss's, and what the replayed rows teach the critic.
    def forward(world_model: Variables) -> tuple[tuple[Array, Array], tuple[LatentState, Metrics]]:
        loss, (posterior, metrics) = world_model_loss(agent, world_model, batch, observe_key, discount=knobs.discount)
        return (loss, latent_features(posterior.states)), (posterior.states, metrics)

    (loss, features), backward, (latents, metrics) = jax.vjp(forward, params.world_model, has_aux=True)
    if mode == "world_model":
        world_model_grad = backward((jnp.ones_like(loss), jnp.zeros_like(features)))[0]
        grads = {"world_model": world_model_grad}
        return Gradients(grads, state.return_scale, latents, metrics | _gradient_norms(grads), next_key)

    # Dreams pass no gradient, so they are made outside of every differentiated function.
    dream = imagine(agent, params, state.slow_critic, merge_time(latents), dream_key)
    if mode == "actor_critic":  # the frozen continue head still has the discount that it was trained with
        dream = dataclasses.replace(dream, cont=dream.cont * (knobs.discount / knobs.cont_discount))
    targets, scale = dream_targets(agent, dream, state.return_scale, return_lambda=knobs.return_lambda)
    entropy_scale = knobs.entropy_scale * _entropy_shape(agent, state)
    (actor_grad, critic_grad), dream_metrics = actor_critic_grad(
        agent, params.actor, params.critic, dream, targets, entropy_scale=entropy_scale
    )

    def replay_loss(critic: Variables, features: Array) -> Array:
        bootstrap = targets.returns[0].reshape(batch.reward.shape)  # [N] -> [T, B], as `merge_time` had it
        loss = replay_critic_loss(agent, critic, state.slow_critic, features, batch, bootstrap, knobs)
        return agent.config.critic.replay_scale * loss.mean()

    replay_critic, (replay_grad, features_grad) = jax.value_and_grad(replay_loss, argnums=(0, 1))(
        params.critic, features
    )
    grads = {"actor": actor_grad, "critic": jax.tree.map(jnp.add, critic_grad, replay_grad)}
    if mode == "joint":
        # What the replayed rows teach the critic also shapes the features that it reads.
        grads["world_model"] = backward((jnp.ones_like(loss), features_grad))[0]
    metrics |= _gradient_norms(grads)
    metrics |= dream_metrics | {
        "actor_entropy_share": entropy_share(agent, dream_metrics["actor_entropy"]),
        "replay_critic_loss": replay_critic,
        "critic_lag": jnp.abs(dream.value - dream.slow_value).mean(),
        "value_mean": dream.value.mean(),
        "return_mean": targets.returns.mean(),
        "return_scale": return_range(scale),
        "advantage_std": targets.advantage.std(),
        "dream_reward_mean": dream.reward[1:].mean(),
        "dream_cont_mean": dream.cont[1:].mean(),
        "entropy_scale": entropy_scale,
    }
    return Gradients(grads, scale, latents, metrics, next_key)


def _gradient_norms(grads: dict[str, Variables]) -> Metrics:
    """Of each network that is trained, and of the world model's parts."""
    norms = {f"{name}_grad_norm": optax.tree.norm(grad) for name, grad in grads.items()}
    return norms | module_grad_norms(grads["world_model"]) if "world_model" in grads else norms


def _entropy_shape(agent: Agent, state: TrainState) -> Array:
    config = agent.config.actor
    return schedule_shape(
        state.step,
        config.entropy_schedule,
        final_fraction=config.entropy_final_fraction,
        decay_updates=config.entropy_decay_updates,
    )
