"""The static parts of an agent: settings, spaces, modules, optimizer. `TrainState` contains the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dreamerjax.agent.optimizer import build_optimizer
from dreamerjax.config import AgentConfig
from dreamerjax.math.transforms import symexp_bins
from dreamerjax.nets.networks import Networks, build_networks, init_params
from dreamerjax.types import Array, Knobs, Params, PRNGKey, ReturnScale, Spaces, TrainState


class Agent(NamedTuple):
    """Everything about an agent that does not change while it learns."""

    config: AgentConfig
    spaces: Spaces
    networks: Networks
    optimizer: optax.GradientTransformation

    @property
    def bins(self) -> Array:
        """The two-hot bins [M] of the reward and critic heads."""
        return symexp_bins(self.config.model.bins)


def build_agent(config: AgentConfig, spaces: Spaces) -> Agent:
    """Makes an agent from a resolved configuration; "auto" precision counts as float32.

    Raises:
        ConfigError: an observation has a shape that the networks cannot see.
    """
    dtype = jnp.dtype(jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32)
    return Agent(config, spaces, build_networks(config.model, spaces, dtype), build_optimizer(config.optimizer))


def init_knobs(config: AgentConfig) -> Knobs:
    """The settings that a population may vary, as arrays []."""
    discount = 1 - 1 / config.returns.discount_horizon
    return Knobs(
        world_model_learning_rate=jnp.float32(config.world_model.learning_rate),
        actor_learning_rate=jnp.float32(config.actor.learning_rate),
        critic_learning_rate=jnp.float32(config.critic.learning_rate),
        entropy_scale=jnp.float32(config.actor.entropy_scale),
        discount=jnp.float32(discount),
        return_lambda=jnp.float32(config.returns.return_lambda),
        cont_discount=jnp.float32(discount),  # an array of its own, because the state is donated
    )


def init_train_state(agent: Agent, key: PRNGKey) -> TrainState:
    """The state before the first update. The key is consumed."""
    params_key, train_key = jax.random.split(key)
    params = init_params(agent.networks, params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        slow_critic=jax.tree.map(jnp.copy, params.critic),  # a copy, because the state is donated
        opt_state=Params(
            world_model=agent.optimizer.init(params.world_model),
            actor=agent.optimizer.init(params.actor),
            critic=agent.optimizer.init(params.critic),
        ),
        return_scale=ReturnScale(low=jnp.zeros(()), high=jnp.zeros(())),
        knobs=init_knobs(agent.config),
        key=train_key,
    )
