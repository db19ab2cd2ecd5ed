"""One update of everything: world model, actor, critic, slow critic, return scale."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dreamerjax.agent.actor_critic import actor_critic_grad, dream_targets, imagine, replay_critic_loss
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.optimizer import schedule_shape
from dreamerjax.agent.world_model import observe, world_model_loss
from dreamerjax.nets.rssm import features
from dreamerjax.types import Array, Batch, Metrics, Params, ReturnScale, TrainState, Variables

Mode = Literal["joint", "world_model", "actor_critic"]

TRAINED: dict[Mode, tuple[str, ...]] = {
    "joint": ("world_model", "actor", "critic"),
    "world_model": ("world_model",),
    "actor_critic": ("actor", "critic"),
}


class _Gradients(NamedTuple):
    grads: Params  # zeros where the mode trains nothing
    return_scale: ReturnScale
    metrics: Metrics


def train_step(agent: Agent, state: TrainState, batch: Batch, *, mode: Mode = "joint") -> tuple[TrainState, Metrics]:
    """Makes one update. Pure; jit it with `agent` and `mode` bound, and donate the state.

    Args:
        agent: the static parts.
        state: all that changes; its key is consumed and replaced.
        batch: [T, B, ...].
        mode: "joint" trains everything; "world_model" that alone; "actor_critic" actor and critic in the dreams of
            a frozen world model.

    Returns:
        The next state and the metrics, scalars.
    """
    gradients = _world_model_gradients(agent, state, batch) if mode == "world_model" else None
    gradients = gradients or _dream_gradients(agent, state, batch, frozen_world_model=mode == "actor_critic")
    params, opt_state = state.params, state.opt_state
    metrics = dict(gradients.metrics)
    for name in TRAINED[mode]:
        grad = getattr(gradients.grads, name)
        direction, moved = agent.optimizer.update(grad, getattr(opt_state, name), getattr(params, name))
        learning_rate = getattr(state.knobs, f"{name}_learning_rate")
        updates = jax.tree.map(lambda x, rate=learning_rate: -rate * x, direction)
        params = dataclasses.replace(params, **{name: optax.apply_updates(getattr(params, name), updates)})
        opt_state = dataclasses.replace(opt_state, **{name: moved})
        metrics[f"{name}_grad_norm"] = optax.global_norm(grad)
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        slow_critic=_moving_average(state.slow_critic, params.critic, agent.config.critic.slow_rate),
        opt_state=opt_state,
        return_scale=gradients.return_scale,
        key=_keys(state)[2],
    )
    return state, metrics


def train_steps(agent: Agent, state: TrainState, batches: Batch, *, mode: Mode = "joint") -> tuple[TrainState, Metrics]:
    """Makes U updates in one dispatch, on batches [U, T, B, ...]; metrics come back as means over the U updates."""
    state, metrics = jax.lax.scan(lambda state, batch: train_step(agent, state, batch, mode=mode), state, batches)
    return state, jax.tree.map(lambda x: x.mean(0), metrics)


def _keys(state: TrainState) -> Array:
    """Named keys of one update: [3] observing, dreaming, the next update's."""
    return jax.random.split(state.key, 3)


def _moving_average(slow: Variables, fast: Variables, rate: float) -> Variables:
    return jax.tree.map(lambda slow, fast: (1 - rate) * slow + rate * fast, slow, fast)


def _world_model_gradients(agent: Agent, state: TrainState, batch: Batch) -> _Gradients:
    observe_key, _, _ = _keys(state)
    loss = lambda params: world_model_loss(agent, params, batch, observe_key, discount=state.knobs.discount)  # noqa: E731
    grad, (_, metrics) = jax.grad(loss, has_aux=True)(state.params.world_model)
    grads = dataclasses.replace(jax.tree.map(jnp.zeros_like, state.params), world_model=grad)
    return _Gradients(grads, state.return_scale, metrics)


def _dream_gradients(agent: Agent, state: TrainState, batch: Batch, *, frozen_world_model: bool) -> _Gradients:
    """Observes the batch, dreams from every row of it, and differentiates all losses that follow."""
    stop = jax.lax.stop_gradient
    observe_key, dream_key, _ = _keys(state)
    knobs, actor_config = state.knobs, agent.config.actor

    def loss(params: Params):
        if frozen_world_model:
            posterior = stop(observe(agent, params.world_model, batch, observe_key))
            total, metrics = jnp.zeros(()), {}
        else:
            total, (posterior, metrics) = world_model_loss(
                agent, params.world_model, batch, observe_key, discount=knobs.discount
            )
        starts = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), posterior.states)
        dream = imagine(agent, stop(params), state.slow_critic, stop(starts), dream_key)
        targets, scale = dream_targets(agent, dream, state.return_scale, return_lambda=knobs.return_lambda)
        bootstrap = targets.returns[0].reshape(batch.reward.shape)
        replay_critic = replay_critic_loss(
            agent, params.critic, state.slow_critic, features(posterior.states), batch, bootstrap, knobs
        ).mean()
        total = total + agent.config.critic.replay_scale * replay_critic
        return total, (dream, targets, scale, metrics | {"replay_critic_loss": replay_critic})

    grads, (dream, targets, scale, metrics) = jax.grad(loss, has_aux=True)(state.params)

    entropy_scale = knobs.entropy_scale * schedule_shape(
        state.step,
        actor_config.entropy_schedule,
        final_fraction=actor_config.entropy_final_fraction,
        decay_updates=actor_config.entropy_decay_updates,
    )
    (actor_grad, critic_grad), actor_critic_metrics = actor_critic_grad(
        agent, state.params.actor, state.params.critic, dream, targets, entropy_scale=entropy_scale
    )
    grads = dataclasses.replace(grads, actor=actor_grad, critic=jax.tree.map(jnp.add, grads.critic, critic_grad))
    metrics |= actor_critic_metrics | {
        "value_mean": dream.value.mean(),
        "return_mean": targets.returns.mean(),
        "return_scale": scale.high - scale.low,
        "advantage_std": targets.advantage.std(),
        "dream_reward_mean": dream.reward[1:].mean(),
        "dream_cont_mean": dream.cont[1:].mean(),
        "entropy_scale": entropy_scale,
    }
    return _Gradients(grads, scale, metrics)
