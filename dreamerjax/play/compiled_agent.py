"""The compiled programs of the page: the start of a dream and one step, with all outputs that the page shows."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.dream import look, read
from dreamerjax.agent.policy import action_distribution
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.math.distributions import unimix_probs
from dreamerjax.nets.networks import WorldModel, apply
from dreamerjax.nets.rssm import initial_latent, latent_features, latent_noise
from dreamerjax.types import Array, LatentState, Params, PRNGKey, Rows

CONTEXT = 64  # maximum rows that the agent observes before a dream starts


@flax.struct.dataclass
class StepOutput:
    """The agent's outputs in one latent state, without a batch axis except in `state` and `action`."""

    state: LatentState  # N = 1
    obs: dict[str, Array]  # name -> [...] decoded
    reward: Array  # []
    cont: Array  # [] probability that the episode continues
    value: Array  # []
    surprise: Array  # [] nats: KL of the posterior after the real observation from the prior
    policy_entropy: Array  # [] nats
    prior_probs: Array  # [S, K] of the latent groups, before the real observation
    action: Array  # [1, A] mode of the policy
    policy_std: Array  # [A] standard deviation of the policy, per number of the action


class RealObservation(NamedTuple):
    """An observation of the real environment."""

    obs: dict[str, np.ndarray]  # name -> [1, ...]
    observing: bool  # whether the agent uses it


class CompiledAgent:
    """The compiled functions, shared by all dreams of one agent."""

    def __init__(self, dreamer: Dreamer) -> None:
        """Compiles on first use; `warm_up` compiles everything."""
        loaded = dreamer.loaded
        self._dreamer, self._agent, self._params = dreamer, loaded.agent, loaded.state.params
        self._discount = loaded.state.knobs.cont_discount
        self._outputs, self._step = _jit(self._agent)
        # A placeholder without a real environment; its values are not used.
        self._blank = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in dreamer.spaces.obs}

    def warm_up(self, rows: Rows | None = None) -> None:
        """Compiles all programs; the encoder only if rows [T, 1, ...] are given."""
        output = self.begin(rows, seed=0)
        self.step(output.state, np.zeros_like(output.action), None, np.zeros(2, np.uint32))

    def begin(self, rows: Rows | None, *, seed: int) -> StepOutput:
        """The outputs after observing the last `CONTEXT` of rows [T, 1, ...], or in the initial state if None."""
        if rows is None:
            model = self._agent.networks.world_model
            state = initial_latent(1, self._agent.config.model, model.dtype)
            surprise = np.float32(0)
        else:
            seen = self._dreamer.encode(jax.tree.map(lambda x: x[-CONTEXT:], rows), seed=seed)
            state, surprise = seen.states[-1], seen.kl[-1, 0]
        return _owned(self._outputs(self._params, state, surprise, self._discount))

    def step(
        self, state: LatentState, action: np.ndarray, observed: RealObservation | None, key: np.ndarray
    ) -> StepOutput:
        """Dreams one step with an action [1, A], and uses the real observation if `observed.observing`."""
        obs, observing = (observed.obs, observed.observing) if observed else (self._blank, False)
        return _owned(self._step(self._params, state, action, obs, np.bool_(observing), key, self._discount))


def _owned(output: StepOutput) -> StepOutput:
    """A copy in numpy: a view would keep JAX's buffers alive, which are several times larger."""
    return jax.tree.map(np.array, output)


@functools.lru_cache(maxsize=4)
def _jit(agent: Agent) -> tuple[Callable[..., StepOutput], Callable[..., StepOutput]]:
    """`_outputs` and `_step`, jitted once for each agent."""
    return jax.jit(functools.partial(_outputs, agent)), jax.jit(functools.partial(_step, agent))


def _step(
    agent: Agent,
    params: Params,
    state: LatentState,
    action: Array,
    obs: dict[str, Array],
    observing: Array,
    key: PRNGKey,
    discount: Array,
) -> StepOutput:
    noise_key, look_key = jax.random.split(key)
    noise = latent_noise(noise_key, 1, config=agent.config.model)
    dreamed = apply(
        agent.networks.world_model, params.world_model, state, action, noise, method=WorldModel.imagine_step
    )
    seen, surprise = look(agent, params, dreamed, obs, look_key)
    state = jax.tree.map(lambda a, b: jnp.where(observing, a, b), seen, dreamed)
    return _outputs(agent, params, state, surprise[0], discount)


def _outputs(agent: Agent, params: Params, state: LatentState, surprise: Array, discount: Array) -> StepOutput:
    reading = read(agent, params, state, cont_discount=discount)
    actions = action_distribution(agent, apply(agent.networks.actor, params.actor, latent_features(state)))
    return StepOutput(
        state=state,
        obs={name: x[0] for name, x in reading.obs.items()},
        reward=reading.reward[0],
        cont=reading.cont[0],
        value=reading.value[0],
        surprise=surprise,
        policy_entropy=reading.policy_entropy[0],
        prior_probs=unimix_probs(reading.prior_logits[0], agent.config.model.unimix),
        action=actions.mode(),
        policy_std=actions.std()[0],
    )
