"""Diagnostics of learning: compares dreams with real rows, and measures the gradients that reach each part.

`docs/research.md` gives the meaning of each number and the remedy.
"""

import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.dream import dream
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.predictions import predict_cont, predict_reward, predict_value, undiscounted
from dreamerjax.agent.replay_critic import replay_returns
from dreamerjax.agent.world_model import observation_loss, observe, posterior_kl, world_model_loss
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import latent_features, merge_time
from dreamerjax.types import Array, Batch, LatentState, Metrics, PRNGKey, TrainState

HORIZONS = (1, 3, 15)  # imagined steps after which a dream is compared with the truth
CONTEXT = 8  # rows that are seen before a dream that is compared


def diagnose(
    agent: Agent, state: TrainState, newest: Batch, replayed: Batch, key: PRNGKey, *, sequence_length: int
) -> Metrics:
    """Compares the predictions of the agent with replayed rows. Pure.

    Args:
        agent: the static parts.
        state: the parameters; the newest.
        newest: [L, num_envs, ...] the newest rows in the order of time, L a multiple of `sequence_length`.
        replayed: [T, B, ...] windows from all of the replay.
        key: consumed.
        sequence_length: rows of the windows into which the newest are cut.

    Returns:
        Scalars: `value_...` against the returns that followed; `reward_...`, `cont_...`; `dream_..._h3` after so many
        imagined steps; `world_model_loss_...` and `kl_...` on the newest rows and on all.
    """
    keys = jax.random.split(key, 4)
    discount = state.knobs.discount
    world_model, newest_windows = state.params.world_model, _cut(newest, sequence_length)
    new_posterior = observe(agent, world_model, newest_windows, keys[0])
    new_loss, new_metrics = world_model_loss(agent, world_model, newest_windows, new_posterior, discount=discount)
    posterior = observe(agent, world_model, replayed, keys[1])
    loss, metrics = world_model_loss(agent, world_model, replayed, posterior, discount=discount)
    value = predict_value(agent, state.params.critic, latent_features(new_posterior.states))
    value = _joined(value, newest.reward.shape)
    agree = posterior.post_logits.argmax(-1) == posterior.prior_logits.argmax(-1)
    return {
        "world_model_loss_newest": new_loss,
        "world_model_loss_replay": loss,
        "kl_newest": new_metrics["kl"],
        "kl_replay": metrics["kl"],
        "prior_agreement": agree.mean(),
        "posterior_entropy": metrics["posterior_entropy"],
        "prior_entropy": metrics["prior_entropy"],
        **_value_against_returns(value, newest, discount),
        **_heads_against_rows(agent, state, posterior.states, replayed),
        **_dreams_against_rows(agent, state, posterior.states, posterior.post_logits, replayed, keys[2]),
        **_survival(agent, state, posterior.states, keys[3]),
    }


def _value_against_returns(value: Array, rows: Batch, discount: Array) -> Metrics:
    """The value of each row [L, num_envs] against the discounted return that followed.

    An episode that was cut short, or has not ended, counts with the value of its last row.
    """
    returns = replay_returns(
        rows.reward, rows.is_last, rows.is_terminal, value, discount=discount, return_lambda=jnp.ones(())
    )
    known, value = 1.0 - rows.is_last[:-1], value[:-1]

    def mean(x: Array) -> Array:
        return (known * x).sum() / jnp.maximum(known.sum(), 1)

    value_mean, return_mean = mean(value), mean(returns)
    return {
        "value_mean": value_mean,
        "value_return": return_mean,
        "value_bias": value_mean - return_mean,
        "value_correlation": _correlation(value, returns, known),
    }


def _heads_against_rows(agent: Agent, state: TrainState, states: LatentState, rows: Batch) -> Metrics:
    """Predictions of the heads for observed rows; the reward is also compared with the previous and the next row."""
    reward, cont = _predictions(agent, state, states)
    inner = reward[1:-1]
    shifted = {"": rows.reward[1:-1], "_previous": rows.reward[:-2], "_next": rows.reward[2:]}
    return {
        "reward_error": jnp.abs(reward - rows.reward).mean(),
        **{f"reward_correlation{name}": _correlation(inner, real, jnp.ones(())) for name, real in shifted.items()},
        "cont_predicted": cont.mean(),
        "cont_real": 1.0 - rows.is_terminal.mean(),
    }


def _correlation(x: Array, y: Array, weight: Array) -> Array:
    """Correlation [] of two arrays [...], each element with its weight; 0 where one of them does not vary."""
    weight = jnp.broadcast_to(weight, x.shape)
    weight = weight / jnp.maximum(weight.sum(), 1)
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    variances = (weight * jnp.square(x)).sum() * (weight * jnp.square(y)).sum()
    return (weight * x * y).sum() / jnp.sqrt(jnp.maximum(variances, 1e-12))


def _dreams_against_rows(
    agent: Agent, state: TrainState, states: LatentState, post_logits: Array, rows: Batch, key: PRNGKey
) -> Metrics:
    """Open-loop predictions under the recorded actions, compared with the recorded rows."""
    length = rows.reward.shape[0]
    context = min(CONTEXT, length - 1)
    horizon = min(max(HORIZONS), length - context)
    start = jax.tree.map(lambda x: x[context - 1], states)
    rest = jax.tree.map(lambda x: x[context : context + horizon], rows)
    discount = state.knobs.cont_discount
    actions = rest.prev_action
    dreamed = dream(agent, state.params, start, key, horizon=horizon, actions=actions, cont_discount=discount)
    decoded = apply(
        agent.networks.world_model,
        state.params.world_model,
        latent_features(dreamed.states),
        method=WorldModel.decode,
    )
    errors = [observation_loss(spec, decoded[spec.name], rest.obs[spec.name]) for spec in agent.spaces.obs]
    compared = {
        "obs_error": jnp.stack(errors).sum(0),
        "reward_error": jnp.abs(dreamed.reward - rest.reward),
        "cont_error": jnp.abs(dreamed.cont - (1.0 - rest.is_terminal)),
        "kl": posterior_kl(agent, post_logits[context : context + horizon], dreamed.prior_logits),
    }
    same_episode = jnp.cumprod(1.0 - rest.is_first, 0)  # [H, B]
    count = jnp.maximum(same_episode.sum(-1), 1)
    return {
        f"dream_{name}_h{h}": ((x * same_episode).sum(-1) / count)[h - 1]
        for name, x in compared.items()
        for h in HORIZONS
        if h <= horizon
    }


def _survival(agent: Agent, state: TrainState, states: LatentState, key: PRNGKey) -> Metrics:
    """Probability, without the discount, that a dream under the policy continues after the given numbers of steps."""
    dreams = imagine(agent, state.params, state.slow_critic, merge_time(states), key, knobs=state.knobs)
    alive = jnp.cumprod(jnp.minimum(undiscounted(dreams.cont[1:], state.knobs.discount), 1), 0).mean(-1)
    return {f"dream_survival_h{h}": alive[h - 1] for h in HORIZONS if h <= len(alive)}


def _predictions(agent: Agent, state: TrainState, states: LatentState) -> tuple[Array, Array]:
    """Reward and probability to go on (without the discount) in latent states, [...] each."""
    params, features = state.params.world_model, latent_features(states)
    cont = undiscounted(predict_cont(agent, params, features), state.knobs.cont_discount)
    return predict_reward(agent, params, features), cont


def _cut(rows: Batch, length: int) -> Batch:
    """Cuts [L, num_envs, ...] into windows [length, L / length * num_envs, ...]."""

    def cut(x: Array) -> Array:
        windows = x.reshape(-1, length, *x.shape[1:]).swapaxes(0, 1)
        return windows.reshape(length, -1, *x.shape[2:])

    return jax.tree.map(cut, rows)


def _joined(x: Array, shape: tuple[int, ...]) -> Array:
    """Undoes `_cut` for scalars of rows."""
    return x.reshape(x.shape[0], -1, shape[1]).swapaxes(0, 1).reshape(shape)
