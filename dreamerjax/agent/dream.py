"""Dreams to look at: imagined steps with everything that the model predicts along the way."""

import flax.struct
import jax
import jax.numpy as jnp

from dreamerjax.agent.actor_critic import critic_value
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.policy import action_distribution
from dreamerjax.agent.world_model import observe
from dreamerjax.math.transforms import symexp, two_hot_mean
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import latent_features, latent_noise
from dreamerjax.types import Array, Batch, LatentState, ObsSpec, Params, PRNGKey


@flax.struct.dataclass
class Dream:
    """Dreams to look at: index h is the state after h + 1 imagined steps, beside the action that led there.

    (`Trajectory`, to learn from, begins with the start itself, beside the action that is taken there.)
    """

    states: LatentState  # [H, ...] of N dreams
    action: Array  # [H, N, A] that led to the state
    obs: dict[str, Array]  # name -> [H, N, ...] decoded, as the environment would give them
    reward: Array  # [H, N]
    cont: Array  # [H, N] probability that the episode goes on, times the discount
    value: Array  # [H, N]


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


def dream(
    agent: Agent, params: Params, start: LatentState, key: PRNGKey, *, horizon: int, actions: Array | None = None
) -> Dream:
    """Dreams on from N latent states, under given actions or under the policy.

    Args:
        agent: the static parts.
        params: all trained parameters.
        start: N states.
        key: consumed.
        horizon: H, steps.
        actions: [H, N, A]; None lets the policy act.

    Returns:
        The dream and what the model predicts along it.
    """
    model = agent.networks.world_model

    def step(state: LatentState, row: tuple[PRNGKey, Array | None]) -> tuple[LatentState, tuple[LatentState, Array]]:
        key, action = row
        action_key, latent_key = jax.random.split(key)
        noise = latent_noise(latent_key, state.stoch.shape[0], config=agent.config.model)
        if action is None:
            outputs = apply(agent.networks.actor, params.actor, latent_features(state))
            action = action_distribution(agent, outputs).sample(action_key)
        state = apply(model, params.world_model, state, action, noise, method=WorldModel.imagine_step)
        return state, (state, action)

    states, taken = jax.lax.scan(step, start, (jax.random.split(key, horizon), actions))[1]
    features = latent_features(states)
    reward_logits = apply(model, params.world_model, features, method=WorldModel.reward)
    return Dream(
        states=states,
        action=taken,
        obs=decode(agent, params, states),
        reward=two_hot_mean(reward_logits, agent.bins),
        cont=jax.nn.sigmoid(apply(model, params.world_model, features, method=WorldModel.cont)),
        value=critic_value(agent, params.critic, features),
    )


def open_loop(agent: Agent, params: Params, batch: Batch, key: PRNGKey, *, context: int) -> dict[str, Array]:
    """Watches the first rows of a batch, then shuts its eyes and predicts the rest under the actions really taken.

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
    dreamed = dream(agent, params, last, dream_key, horizon=rest.shape[0], actions=rest)
    reconstructed = decode(agent, params, states)
    return {name: jnp.concatenate([reconstructed[name], dreamed.obs[name]]) for name in reconstructed}
