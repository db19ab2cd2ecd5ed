"""Times the stages of an update, each compiled separately, from the agent's own functions.

    world_model_forward     forward pass of encoder, recurrence and heads; stores the backward pass's inputs
    imagine                 imagined trajectories
    actor_critic            targets, and the gradients of actor and critic on imagined and on replayed rows
    world_model_backward    backward pass of the world model
    optimizer               AGC, LaProp, the updates of all parameters and of the slow critic
    transfer                transfer of one update's batch to the device

and what happens between updates:

    host_sampling           sampling one update's batch from the replay
    policy_step             one action for every environment, from the observation to numpy
    env_step                one step of all copies of CartPole, for any observation

Separately compiled stages cannot share or overlap work, and intermediate results go through memory. The sum of
their times therefore differs from the time of the whole update.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent.agent import Agent, init_train_state
from dreamerjax.agent.imagine import imagine
from dreamerjax.agent.policy import initial_policy_state, jit_policy
from dreamerjax.agent.train_step import (
    ActorCriticGradients,
    ReplayGradients,
    actor_critic_gradients,
    apply_gradients,
    replay_gradients,
    world_model_forward,
    world_model_gradients,
)
from dreamerjax.bench.synthetic import synthetic_rows
from dreamerjax.config import Config, EnvConfig
from dreamerjax.envs import make_env
from dreamerjax.nets.rssm import merge_time
from dreamerjax.replay.replay import Replay
from dreamerjax.types import Array, Batch, LatentState, PRNGKey, TrainState, Trajectory

OF_UPDATE = ("world_model_forward", "imagine", "actor_critic", "world_model_backward", "optimizer", "transfer")
BETWEEN_UPDATES = ("host_sampling", "policy_step", "env_step")
STEPS = 20  # of policy and environment in one round: one alone is too short to time


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until all arrays of a call's result are there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def imagined(agent: Agent, state: TrainState, latents: LatentState, key: PRNGKey) -> Trajectory:
    """Trajectories from all latent states [T, ...] of a batch."""
    return imagine(agent, state.params, state.slow_critic, merge_time(latents), key, knobs=state.knobs)


def behaviour_gradients(
    agent: Agent, state: TrainState, dream: Trajectory, features: Array, batch: Batch
) -> tuple[ActorCriticGradients, ReplayGradients]:
    """Gradients of actor and critic on imagined trajectories, and of the critic on the batch."""
    on_dreams = actor_critic_gradients(agent, state, dream)
    return on_dreams, replay_gradients(agent, state, features, batch, on_dreams.returns)


class Parts:
    """What it takes to time the stages: a train state, environments, compiled functions."""

    def __init__(self, agent: Agent, config: Config, replay: Replay, *, seed: int) -> None:
        """Initialises all of it; the programs are compiled in the first round."""
        bound = functools.partial
        self._forward = jax.jit(bound(world_model_forward, agent))
        self._imagine = jax.jit(bound(imagined, agent))
        self._actor_critic = jax.jit(bound(behaviour_gradients, agent))
        self._backward = jax.jit(world_model_gradients)
        self._optimizer = jax.jit(bound(apply_gradients, agent), donate_argnums=0)
        self._policy = jit_policy(agent)

        self._config, self._replay = config, replay
        self._state = jax.jit(bound(init_train_state, agent))(jax.random.PRNGKey(seed))
        num_envs = config.env.num_envs
        self._rows = synthetic_rows(agent.spaces, num_envs=num_envs, seed=seed)
        self._policy_state, self._key = initial_policy_state(agent, num_envs), jax.random.PRNGKey(seed + 1)
        self._env = make_env(EnvConfig(id="gym:CartPole-v1"), num_envs=num_envs, seed=seed)
        self._env.reset()
        self._random = np.random.default_rng(seed)

    def round(self) -> dict[str, float]:
        """Times every part once, on new rows and keys.

        Returns:
            Part -> milliseconds, for one update or one step.
        """
        seconds = self._update() | self._data() | self._steps()
        return {name: 1e3 * seconds[name] for name in (*OF_UPDATE, *BETWEEN_UPDATES)}

    def close(self) -> None:
        """Closes the environments."""
        self._env.close()

    def _update(self) -> dict[str, float]:
        """The parts of one update on the device, each on what the one before it made."""
        train, state = self._config.train, self._state
        batch = jax.tree.map(lambda x: x[0], self._replay.sample(train.batch_size, train.sequence_length, 1))
        self._key, observe_key, dream_key = jax.random.split(self._key, 3)
        batch, observe_key, dream_key = jax.block_until_ready(jax.device_put((batch, observe_key, dream_key)))

        forward_time, forward = seconds_of(lambda: self._forward(state, batch, observe_key))
        imagine_time, dream = seconds_of(lambda: self._imagine(state, forward.latents, dream_key))
        actor_critic_time, (on_dreams, on_rows) = seconds_of(
            lambda: self._actor_critic(state, dream, forward.features, batch)
        )
        backward_time, world_model = seconds_of(lambda: self._backward(forward, on_rows.features))
        critic = jax.tree.map(jnp.add, on_dreams.grads.critic, on_rows.critic)
        grads = {"world_model": world_model, "actor": on_dreams.grads.actor, "critic": critic}
        optimizer_time, state = seconds_of(lambda: self._optimizer(state, grads))
        self._state = dataclasses.replace(state, step=state.step + 1, return_scale=on_dreams.return_scale)
        return {
            "world_model_forward": forward_time,
            "imagine": imagine_time,
            "actor_critic": actor_critic_time,
            "world_model_backward": backward_time,
            "optimizer": optimizer_time,
        }

    def _data(self) -> dict[str, float]:
        """Batches for one dispatch, drawn and moved; the seconds are those of one update."""
        train = self._config.train
        updates = train.updates_per_dispatch
        sampling, batches = seconds_of(lambda: self._replay.sample(train.batch_size, train.sequence_length, updates))
        transferring, _ = seconds_of(lambda: jax.device_put(batches))
        return {"host_sampling": sampling / updates, "transfer": transferring / updates}

    def _steps(self) -> dict[str, float]:
        """Actions and environment steps; the seconds are those of one."""
        acting = stepping = 0.0
        for _ in range(STEPS):
            rows = next(self._rows)
            seconds, _ = seconds_of(lambda rows=rows: self._act(rows.obs, rows.is_first))
            acting += seconds
            action = self._env.random_action(self._random)
            seconds, _ = seconds_of(lambda action=action: self._env.step(action))
            stepping += seconds
        return {"policy_step": acting / STEPS, "env_step": stepping / STEPS}

    def _act(self, obs: dict[str, np.ndarray], is_first: np.ndarray) -> np.ndarray:
        self._policy_state, action, self._key = self._policy(
            self._state.params, self._policy_state, obs, is_first, self._key
        )
        return np.asarray(action)
