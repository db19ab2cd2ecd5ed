"""What shows whether learning is sound: dreams against what really happened, and where gradients go.

`docs/research.md` says what each number means and what to do about it.
"""

import math

import jax
import jax.numpy as jnp
import optax

from dreamerjax.agent.actor_critic import critic_value, imagine, replay_returns
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.dream import dream
from dreamerjax.agent.world_model import observation_loss, posterior_kl, world_model_loss
from dreamerjax.math.transforms import two_hot_mean
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import latent_features, merge_time
from dreamerjax.types import Array, Batch, LatentState, Metrics, PRNGKey, TrainState, Variables

HORIZONS = (1, 3, 15)  # imagined steps after which a dream is compared with the truth
CONTEXT = 8  # rows that are seen before a dream that is compared
LEAST_RANGE = 1e-4  # nats between lowest and highest entropy: below it, the policy has nothing to choose


def module_grad_norms(world_model_grad: Variables) -> Metrics:
    """Norm of the gradient that reaches each part of the world model: `grad_norm/prior` and so on."""
    modules = dict(world_model_grad["params"])
    rssm = modules.pop("rssm")
    parts = {name.removesuffix("_head"): [module] for name, module in modules.items()}
    for name, module in rssm.items():
        parts.setdefault(name.partition("_")[0], []).append(module)
    return {f"grad_norm/{name}": optax.tree.norm(part) for name, part in parts.items()}


def entropy_range(agent: Agent) -> tuple[float, float]:
    """The lowest and the highest entropy in nats that the policy can have."""
    lowest = highest = 0.0
    for part in agent.spaces.actions:
        if part.kind == "discrete":
            rest = agent.config.actor.unimix / part.size
            probs = [1 - (part.size - 1) * rest, *[rest] * (part.size - 1)]
            lowest -= sum(p * math.log(p) for p in probs if p > 0)
            highest += math.log(part.size)
        else:  # the standard deviation is 0.1 to 1: see `normal_mean_std`
            lowest += part.size * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.1))
            highest += part.size * 0.5 * math.log(2 * math.pi * math.e)
    return lowest, highest


def entropy_share(agent: Agent, entropy: Array) -> Array:
    """Where an entropy [...] in nats lies between the lowest, 0, and the highest, 1, that the policy can have.

    A policy that has nothing to choose, because each part of its action has one choice or `actor.unimix` is 1, always
    has the highest entropy: its share is 1.
    """
    lowest, highest = entropy_range(agent)
    if highest - lowest < LEAST_RANGE:
        return jnp.ones_like(entropy)
    return (entropy - lowest) / (highest - lowest)


def diagnose(
    agent: Agent, state: TrainState, newest: Batch, replayed: Batch, key: PRNGKey, *, sequence_length: int
) -> Metrics:
    """Compares what the agent believes with what the replay holds. Pure, and changes nothing.

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
    new_loss, (new_posterior, new_metrics) = world_model_loss(
        agent, state.params.world_model, _cut(newest, sequence_length), keys[0], discount=discount
    )
    loss, (posterior, metrics) = world_model_loss(agent, state.params.world_model, replayed, keys[1], discount=discount)
    value = critic_value(agent, state.params.critic, latent_features(new_posterior.states))
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
    """The value of each row [L, copies] against the discounted return that followed.

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
    """What the heads say of rows that were seen; the reward also with the rewards of the rows before and after."""
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
    """Open loop: dreams under the actions really taken, against the rows that they led to."""
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
    """The probability that a dream under the policy still goes on after so many steps, the discount taken out."""
    dreams = imagine(agent, state.params, state.slow_critic, merge_time(states), key)
    alive = jnp.cumprod(jnp.minimum(dreams.cont[1:] / state.knobs.cont_discount, 1), 0).mean(-1)
    return {f"dream_survival_h{h}": alive[h - 1] for h in HORIZONS if h <= len(alive)}


def _predictions(agent: Agent, state: TrainState, states: LatentState) -> tuple[Array, Array]:
    """Reward and probability to go on (without the discount) in latent states, [...] each."""
    model, params, features = agent.networks.world_model, state.params.world_model, latent_features(states)
    reward = two_hot_mean(apply(model, params, features, method=WorldModel.reward), agent.bins)
    cont = jax.nn.sigmoid(apply(model, params, features, method=WorldModel.cont)) / state.knobs.cont_discount
    return reward, cont


def _cut(rows: Batch, length: int) -> Batch:
    """Cuts [L, num_envs, ...] into windows [length, L / length * copies, ...]."""

    def cut(x: Array) -> Array:
        windows = x.reshape(-1, length, *x.shape[1:]).swapaxes(0, 1)
        return windows.reshape(length, -1, *x.shape[2:])

    return jax.tree.map(cut, rows)


def _joined(x: Array, shape: tuple[int, ...]) -> Array:
    """Undoes `_cut` for scalars of rows."""
    return x.reshape(x.shape[0], -1, shape[1]).swapaxes(0, 1).reshape(shape)
