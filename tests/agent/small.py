"""A small agent with random parameters, and states and columns of numbers to try it with."""

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent.agent import Agent, build_agent
from dreamerjax.config import AgentConfig, ReturnsConfig
from dreamerjax.nets.networks import init_params
from dreamerjax.nets.rssm import initial_latent
from dreamerjax.types import ActionSpec, LatentState, ObsSpec, Params, Spaces
from tests.tiny import MODEL, random_like

H, N, A = 3, 6, 3
CONFIG = AgentConfig(model=MODEL, returns=ReturnsConfig(imagination_horizon=H))
KEY = jax.random.PRNGKey(11)


def make_agent(kind, config: AgentConfig = CONFIG) -> Agent:
    return build_agent(config, Spaces(obs=(ObsSpec("state", (3,)),), actions=(ActionSpec(kind, A),)))


DISCRETE = make_agent("discrete")


def random_params(agent: Agent, seed: int = 0) -> Params:
    """Random parameters, without the structure of the initial ones: no head puts out zeros."""
    shapes = jax.eval_shape(lambda key: init_params(agent.networks, key), KEY)
    return random_like(shapes, scale=0.7, seed=seed, small_returns=True)


def random_start() -> LatentState:
    rng = np.random.default_rng(3)
    empty = initial_latent(N, MODEL, jnp.dtype(jnp.float32))
    stoch = np.eye(4)[rng.integers(4, size=(N, 4))]
    return LatentState(jnp.asarray(rng.normal(size=empty.deter.shape), jnp.float32), jnp.asarray(stoch, jnp.float32))


def largest(tree) -> float:
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def column(*values: float) -> jax.Array:
    """One dream, or one sequence: [time, 1]."""
    return jnp.array(values, jnp.float32)[:, None]
