"""Adaptive gradient clipping and LaProp, from optax parts, with warm-up and decay."""

import jax
import jax.numpy as jnp
import optax

from dreamerjax.config import OptimizerConfig, Schedule
from dreamerjax.types import Array


def clip_per_tensor(clip: float, floor: float) -> optax.GradientTransformation:
    """Adaptive gradient clipping by whole tensors: g / max(1, |g| / (clip max(floor, |p|))) (Brock et al. 2021).

    `optax.adaptive_grad_clip` clips unit by unit and is not the same.
    """

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        def clipped(gradient: Array, param: Array) -> Array:
            limit = clip * jnp.maximum(floor, jnp.linalg.norm(param.ravel()))
            return gradient / jnp.maximum(1.0, jnp.linalg.norm(gradient.ravel()) / limit)

        return jax.tree.map(clipped, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def schedule_shape(step: Array, schedule: Schedule, *, final_fraction: float, decay_updates: int) -> Array:
    """Factor [] on a starting value: 1 for "constant", half a cosine from 1 to final_fraction for "cosine"."""
    if schedule == "constant":
        return jnp.ones(())
    progress = jnp.clip(step / decay_updates, 0.0, 1.0)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


def learning_rate_shape(step: Array, config: OptimizerConfig) -> Array:
    """Factor [] on the learning rate of update `step`, the first being 0: linear warm-up from 0, then the schedule.

    Each network counts its own updates: the warm-up of the world model does not count for the actor.
    """
    warmup = jnp.minimum(1.0, step / config.warmup_updates) if config.warmup_updates else jnp.ones(())
    decay = schedule_shape(
        jnp.maximum(0, step - config.warmup_updates),
        config.schedule,
        final_fraction=config.final_fraction,
        decay_updates=config.decay_updates,
    )
    return warmup * decay


def build_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """AGC, then LaProp: RMS normaliser first, momentum after it (Ziyin et al. 2020), then warm-up and schedule.

    The result is a direction of unit learning rate; the caller multiplies it by minus the learning rate,
    which is data (`Knobs`), so that a population of learning rates trains in one program.
    """
    laprop = optax.chain(
        optax.scale_by_rms(config.beta2, eps=config.epsilon, eps_in_sqrt=False, bias_correction=True),
        optax.ema(config.beta1, debias=True),
        optax.scale_by_schedule(lambda step: learning_rate_shape(jnp.asarray(step), config)),
    )
    # LaProp is elementwise, so all tensors are joined into one vector: a few large operations, not hundreds of small.
    return optax.chain(clip_per_tensor(config.agc_clip, config.agc_floor), optax.flatten(laprop))
