"""Dreams to inspect: imagined steps with all predictions of the model."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.imagine import assert_latent
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.predictions import predict_cont, predict_reward, predict_value, undiscounted
from dreamerjax.agent.world_model import observe, posterior_kl
from dreamerjax.math.distributions import categorical_entropy, unimix
from dreamerjax.math.transforms import symexp
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import latent_features, latent_noise
from dreamerjax.types import Array, Batch, LatentState, ObsSpec, Params, PRNGKey

# (latent states of N dreams, key) -> actions [N, A]
DreamPolicy = Callable[[LatentState, PRNGKey], Array]


@flax.struct.dataclass
class Reading:
    """Predictions of an agent in latent states [..., N]; the leading axis is time, if there is one."""

    states: LatentState  # [...] of N states
    obs: dict[str, Array]  # name -> [..., N, ...] decoded, as the environment would give them
    reward: Array  # [..., N] of arriving here
    cont: Array  # [..., N] probability that the episode continues from here
    value: Array  # [..., N] discounted return that the critic expects from here
    policy_entropy: Array  # [..., N] of the next action, nats
    prior_logits: Array  # [..., N, S, K] of the latent groups, before anything was seen
    prior_entropy: Array  # [..., N] nats


@flax.struct.dataclass
class Dream(Reading):
    """Dreams to inspect: index h has the state after h + 1 imagined steps, and the action that led there.

    (`Trajectory`, to learn from, starts with the first state, and the action that is taken there.)
    """

    action: Array  # [H, N, A] that led to the state


@flax.struct.dataclass
class Encoding(Reading):
    """Posterior states of real rows: index t is the state after row t was observed."""

    post_logits: Array  # [T, N, S, K] of the latent groups, after the observation was seen
    post_entropy: Array  # [T, N] nats
    kl: Array  # [T, N] surprise: KL(posterior || prior), nats


def read(agent: Agent, params: Params, states: LatentState, *, cont_discount: Array | float) -> Reading:
    """Decodes latent states: all predictions of the model, the critic and the policy.

    Args:
        agent: the static parts.
        params: all trained parameters.
        states: of N states, with or without time in front.
        cont_discount: the discount that the continue head has learned, `Knobs.cont_discount`; it is taken out.
    """
    model, features = agent.networks.world_model, latent_features(states)
    prior_logits = apply(model, params.world_model, states.deter, method=WorldModel.prior)
    cont = undiscounted(predict_cont(agent, params.world_model, features), cont_discount)
    return Reading(
        states=states,
        obs=decode(agent, params, states),
        reward=predict_reward(agent, params.world_model, features),
        cont=jnp.minimum(cont, 1.0),
        value=predict_value(agent, params.critic, features),
        policy_entropy=action_distribution(agent, apply(agent.networks.actor, params.actor, features)).entropy(),
        prior_logits=prior_logits,
        prior_entropy=_entropy(agent, prior_logits),
    )


def _entropy(agent: Agent, logits: Array) -> Array:
    """Entropy [...] in nats of all latent groups [..., S, K]."""
    return categorical_entropy(unimix(logits, agent.config.model.unimix)).sum(-1)


def decode(agent: Agent, params: Params, state: LatentState) -> dict[str, Array]:
    """Observations that the model sees in a latent state, as the environment would give them.

    Vectors are [..., size] float32 in its own units, images [..., height, width, channels] uint8, integers the most
    likely ones.
    """
    decoded = apply(agent.networks.world_model, params.world_model, latent_features(state), method=WorldModel.decode)
    return {spec.name: _as_observed(spec, decoded[spec.name]) for spec in agent.spaces.obs}


def _as_observed(spec: ObsSpec, x: Array) -> Array:
    if spec.classes:
        return x.argmax(-1).astype(spec.dtype)
    return jnp.round(255 * x).astype(jnp.uint8) if spec.is_image else symexp(x)


def encode(agent: Agent, params: Params, batch: Batch, key: PRNGKey, *, cont_discount: Array | float) -> Encoding:
    """Filters rows [T, N, ...] into latent states and reads these; the key is consumed, the rest is as in `read`."""
    posterior = observe(agent, params.world_model, batch, key)
    reading = read(agent, params, posterior.states, cont_discount=cont_discount)
    return Encoding(
        **vars(reading),
        post_logits=posterior.post_logits,
        post_entropy=_entropy(agent, posterior.post_logits),
        kl=posterior_kl(agent, posterior.post_logits, posterior.prior_logits),
    )


def look(
    agent: Agent, params: Params, state: LatentState, obs: dict[str, Array], key: PRNGKey
) -> tuple[LatentState, Array]:
    """Corrects the states of a dream with real observations: samples from the posterior instead of the prior.

    Args:
        agent: the static parts.
        params: all trained parameters.
        state: of N dreams.
        obs: name -> [N, ...] real observations.
        key: consumed.

    Returns:
        The states after the look, and the surprise KL(posterior || prior) [N] in nats.
    """
    model = agent.networks.world_model
    embed = apply(model, params.world_model, obs, method=WorldModel.encode)
    noise = latent_noise(key, state.stoch.shape[0], config=agent.config.model)
    seen, post_logits = apply(model, params.world_model, state, embed, noise, method=WorldModel.look)
    prior_logits = apply(model, params.world_model, state.deter, method=WorldModel.prior)
    return seen, posterior_kl(agent, post_logits, prior_logits)


def dream(
    agent: Agent,
    params: Params,
    start: LatentState,
    key: PRNGKey,
    *,
    horizon: int,
    cont_discount: Array | float,
    actions: Array | DreamPolicy | None = None,
) -> Dream:
    """Imagines steps from N latent states, under given actions or under the policy.

    Args:
        agent: the static parts.
        params: all trained parameters.
        start: N states.
        key: consumed.
        horizon: H, steps.
        cont_discount: see `read`.
        actions: [H, N, A], or a function that chooses them; None lets the policy act.

    Returns:
        The dream and what the model predicts along it.
    """
    assert_latent(agent, start)
    model = agent.networks.world_model

    def choose(state: LatentState, key: PRNGKey) -> Array:
        outputs = apply(agent.networks.actor, params.actor, latent_features(state))
        return action_distribution(agent, outputs).sample(key)

    given = None if callable(actions) else actions
    policy = actions if callable(actions) else choose

    def step(state: LatentState, row: tuple[PRNGKey, Array | None]) -> tuple[LatentState, tuple[LatentState, Array]]:
        key, action = row
        action_key, latent_key = jax.random.split(key)
        noise = latent_noise(latent_key, state.stoch.shape[0], config=agent.config.model)
        if action is None:
            action = policy(state, action_key)
        state = apply(model, params.world_model, state, action, noise, method=WorldModel.imagine_step)
        return state, (state, action)

    states, taken = jax.lax.scan(step, start, (jax.random.split(key, horizon), given))[1]
    return Dream(**vars(read(agent, params, states, cont_discount=cont_discount)), action=taken)


def open_loop(agent: Agent, params: Params, batch: Batch, key: PRNGKey, *, context: int) -> dict[str, Array]:
    """Observes the first rows of a batch, then predicts the rest open-loop under the recorded actions.

    Args:
        agent: the static parts.
        params: all trained parameters.
        batch: [T, B, ...].
        key: consumed.
        context: rows that are seen.

    Returns:
        Observations [T, B, ...] as the environment would give them: reconstructed up to `context`, dreamed after it.
    """
    observe_key, dream_key = jax.random.split(key)
    seen = jax.tree.map(lambda x: x[:context], batch)
    states = observe(agent, params.world_model, seen, observe_key).states
    last = jax.tree.map(lambda x: x[-1], states)
    rest = batch.prev_action[context:]
    dreamed = dream(agent, params, last, dream_key, horizon=rest.shape[0], actions=rest, cont_discount=1.0)
    reconstructed = decode(agent, params, states)
    return {name: jnp.concatenate([reconstructed[name], dreamed.obs[name]]) for name in reconstructed}
