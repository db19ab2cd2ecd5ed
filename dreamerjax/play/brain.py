"""One step of one dream, with all that the page shows of it, as a single compiled program."""

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

CONTEXT = 64  # rows that the agent sees before a dream begins, at most


@flax.struct.dataclass
class Thought:
    """What the agent sees, expects and intends in one latent state; no batch but in `state` and `action`."""

    state: LatentState  # of 1 dream
    obs: dict[str, Array]  # name -> [...] decoded
    reward: Array  # []
    cont: Array  # [] probability that the episode goes on
    value: Array  # []
    surprise: Array  # [] nats, at what the real environment showed
    policy_entropy: Array  # [] nats
    prior_probs: Array  # [S, K] of the latent groups, before anything was seen
    action: Array  # [1, A] that the agent would take here, most likely
    policy_std: Array  # [A] standard deviation of each number of it


class Sight(NamedTuple):
    """What the real environment shows."""

    obs: dict[str, np.ndarray]  # name -> [1, ...]
    opened: bool  # the agent looks at it


class Brain:
    """The compiled functions, shared by all dreams of one agent."""

    def __init__(self, dreamer: Dreamer) -> None:
        """Compiles when it is first used; `warm_up` does it at once."""
        loaded = dreamer.loaded
        self._dreamer, self._agent, self._params = dreamer, loaded.agent, loaded.state.params
        self._discount = loaded.state.knobs.cont_discount
        self._think, self._step = _jit(self._agent)
        # What is "seen" where there is no real environment: nothing of it is used.
        self._blank = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in dreamer.spaces.obs}

    def warm_up(self, rows: Rows | None = None) -> None:
        """Compiles everything; what sees rows [T, 1, ...], too, if some are given."""
        thought = self.begin(rows, seed=0)
        self.step(thought.state, np.zeros_like(thought.action), None, np.zeros(2, np.uint32))

    def begin(self, rows: Rows | None, *, seed: int) -> Thought:
        """What the agent thinks after it saw rows [T, 1, ...], of which the last `CONTEXT` count, or nothing at all."""
        if rows is None:
            model = self._agent.networks.world_model
            state = initial_latent(1, self._agent.config.model, model.dtype)
            surprise = np.float32(0)
        else:
            seen = self._dreamer.encode(jax.tree.map(lambda x: x[-CONTEXT:], rows), seed=seed)
            state, surprise = seen.states[-1], seen.kl[-1, 0]
        return _owned(self._think(self._params, state, surprise, self._discount))

    def step(self, state: LatentState, action: np.ndarray, sight: Sight | None, key: np.ndarray) -> Thought:
        """Dreams one step on under an action [1, A]; with its eyes open, the agent sees the real environment there."""
        obs, opened = (sight.obs, sight.opened) if sight else (self._blank, False)
        return _owned(self._step(self._params, state, action, obs, np.bool_(opened), key, self._discount))


def _owned(thought: Thought) -> Thought:
    """A copy in numpy: a view of JAX's buffers keeps what these need beside the numbers, several times their size."""
    return jax.tree.map(np.array, thought)


@functools.lru_cache(maxsize=4)
def _jit(agent: Agent) -> tuple[Callable[..., Thought], Callable[..., Thought]]:
    """`_think` and `_step`, compiled once for each agent, whoever asks."""
    return jax.jit(functools.partial(_think, agent)), jax.jit(functools.partial(_step, agent))


def _step(
    agent: Agent,
    params: Params,
    state: LatentState,
    action: Array,
    obs: dict[str, Array],
    opened: Array,
    key: PRNGKey,
    discount: Array,
) -> Thought:
    noise_key, look_key = jax.random.split(key)
    noise = latent_noise(noise_key, 1, config=agent.config.model)
    dreamed = apply(
        agent.networks.world_model, params.world_model, state, action, noise, method=WorldModel.imagine_step
    )
    seen, surprise = look(agent, params, dreamed, obs, look_key)
    state = jax.tree.map(lambda a, b: jnp.where(opened, a, b), seen, dreamed)
    return _think(agent, params, state, surprise[0], discount)


def _think(agent: Agent, params: Params, state: LatentState, surprise: Array, discount: Array) -> Thought:
    reading = read(agent, params, state, cont_discount=discount)
    actions = action_distribution(agent, apply(agent.networks.actor, params.actor, latent_features(state)))
    return Thought(
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
