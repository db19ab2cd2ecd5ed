"""A population of actor-critics that learn in the dreams of one frozen world model, in one compiled program.

All members train on the same replayed rows and start from the same parameters; their knobs differ. The
computations that do not depend on the member (the world model and its latent states of the rows) are made once for all.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent, init_knobs, init_train_state
from dreamerjax.agent.policy import Policy, initial_policy_state, policy_step
from dreamerjax.agent.train_step import train_steps
from dreamerjax.config import AgentConfig
from dreamerjax.types import Array, Batch, Metrics, Params, PolicyState, PRNGKey, TrainState

# 0: stacked along a leading member axis; None: shared by all members.
_TRAINED: Any = {"world_model": None, "actor": 0, "critic": 0}
_AXES: Any = TrainState(
    **{"step": None, "params": Params(**_TRAINED), "slow_critic": 0, "opt_state": Params(**_TRAINED)},
    **{"return_scale": 0, "knobs": 0, "key": None},
)


def init_population(agent: Agent, source: TrainState, members: Sequence[AgentConfig], key: PRNGKey) -> TrainState:
    """The state of M members before their first update: new actors and critics with the world model of `source`.

    Args:
        agent: the static parts; `members` may differ from it only in the settings of `Knobs`.
        source: the train state that provides the world model.
        members: the settings of each member.
        key: of the parameters and of all updates; consumed.

    Returns:
        A train state whose member-specific parts are stacked, [M, ...].
    """
    fresh = init_train_state(agent, key)
    knobs = [dataclasses.replace(init_knobs(config), cont_discount=source.knobs.cont_discount) for config in members]
    one = dataclasses.replace(fresh, params=dataclasses.replace(fresh.params, world_model=source.params.world_model))
    stacked = _stack([dataclasses.replace(one, knobs=each) for each in knobs])
    return jax.tree.map(jnp.copy, stacked)  # the state is donated later, the source's world model must not be


def member_of(state: TrainState, number: int) -> TrainState:
    """The train state of one member."""
    return jax.tree.map(
        lambda axis, part: part if axis is None else jax.tree.map(lambda x: x[number], part),
        _AXES,
        state,
        is_leaf=lambda x: x is None,
    )


def compile_population(agent: Agent) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Compiles U updates of all members on batches [U, T, B, ...]; metrics are means over U, [M] each."""
    step = functools.partial(train_steps, agent, mode="actor_critic")
    together = jax.vmap(step, in_axes=(_AXES, None), out_axes=(_AXES, 0, None))

    def update(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics, _ = together(state, batches)
        return state, metrics

    return jax.jit(update, donate_argnums=0)


def initial_population_policy(agent: Agent, members: int, num_envs: int) -> PolicyState:
    """The policy states of M members before their first step in C environments each, [M, ...]."""
    one = initial_policy_state(agent, num_envs)
    return jax.tree.map(lambda x: jnp.stack([x] * members), one)


def population_policy(agent: Agent, members: int) -> Policy:
    """The greedy policies of all members as one, for M x C environments, ordered by member.

    (params of the population, policy state [M, ...], obs [M * C, ...], is_first [M * C], key) -> (policy state,
    action [M * C, A], next key)
    """
    step = functools.partial(policy_step, agent, greedy=True)
    together = jax.vmap(step, in_axes=(_AXES.params, 0, 0, 0, None))

    @jax.jit
    def policy(
        params: Params, state: PolicyState, obs: dict[str, Array], is_first: Array, key: PRNGKey
    ) -> tuple[PolicyState, Array, PRNGKey]:
        step_key, next_key = jax.random.split(key)
        obs, is_first = jax.tree.map(lambda x: x.reshape(members, -1, *x.shape[1:]), (obs, is_first))
        state, action = together(params, state, obs, is_first, step_key)
        return state, action.reshape(-1, action.shape[-1]), next_key

    return policy


def _stack(states: Sequence[TrainState]) -> TrainState:
    return jax.tree.map(
        lambda axis, *parts: parts[0] if axis is None else jax.tree.map(lambda *x: jnp.stack(x), *parts),
        _AXES,
        *states,
        is_leaf=lambda x: x is None,
    )
