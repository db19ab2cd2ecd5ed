"""The parts of an update, each compiled and timed apart, from the agent's own functions.

    observe              forward and backward through the recurrence, with respect to the parameters
    world_model_heads    the rest of the world model: forward and backward pass of its whole loss, less `observe`,
                         a difference within the round
    imagine              the dreams, which pass no gradient
    actor_critic         targets, and the gradients of actor and critic on dreams and on replayed rows
    optimizer            AGC, LaProp, the step of all parameters, the slow critic's step
    transfer             one update's batch to the device

and what happens between updates:

    host_sampling        drawing one update's batch from the replay
    policy_step          one action for every copy, from the observation to numpy
    env_step             one step of every copy of CartPole, whatever the agent observes

Apart, the parts cannot share or overlap work, and intermediate results go through memory: what they add up to is not
quite what the whole update takes.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dreamerjax.agent.actor_critic import actor_critic_grad, dream_targets, imagine, replay_critic_loss
from dreamerjax.agent.agent import Agent, init_train_state
from dreamerjax.agent.policy import initial_policy_state, jit_policy
from dreamerjax.agent.world_model import observe, world_model_loss
from dreamerjax.bench.synthetic import synthetic_rows
from dreamerjax.config import Config, EnvConfig
from dreamerjax.envs import make_env
from dreamerjax.nets.rssm import latent_features, merge_time
from dreamerjax.replay.replay import Replay
from dreamerjax.types import Array, Batch, Params, Posterior, PRNGKey, ReturnScale, TrainState, Trajectory, Variables

OF_UPDATE = ("observe", "world_model_heads", "imagine", "actor_critic", "optimizer", "transfer")
BETWEEN_UPDATES = ("host_sampling", "policy_step", "env_step")
STEPS = 20  # of policy and environment in one round: one alone is too short to time


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds until all arrays of a call's result are there, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result


def observe_grad(agent: Agent, params: Variables, batch: Batch, key: PRNGKey) -> tuple[Variables, Posterior]:
    """Gradient of half the sum of squares of all that `observe` puts out, and the posterior."""
    posterior, backward = jax.vjp(lambda params: observe(agent, params, batch, key), params)
    return backward(posterior)[0], posterior


def world_model_grad(
    agent: Agent, params: Variables, batch: Batch, key: PRNGKey, discount: Array, features_grad: Array
) -> Variables:
    """Gradient of the world model's loss, and of what the critic learns from the features [T, B, F]."""

    def forward(params: Variables) -> tuple[Array, Array]:
        loss, (posterior, _) = world_model_loss(agent, params, batch, key, discount=discount)
        return loss, latent_features(posterior.states)

    (loss, _), backward = jax.vjp(forward, params)
    return backward((jnp.ones_like(loss), features_grad))[0]


def actor_critic_grads(
    agent: Agent, state: TrainState, dream: Trajectory, posterior: Posterior, batch: Batch
) -> tuple[tuple[Variables, Variables], Array, ReturnScale]:
    """Gradients of actor and critic, of the replayed features, and the next return scale, as in `train_step`."""
    knobs, params = state.knobs, state.params
    targets, scale = dream_targets(agent, dream, state.return_scale, return_lambda=knobs.return_lambda)
    (actor_grad, critic_grad), _ = actor_critic_grad(
        agent, params.actor, params.critic, dream, targets, entropy_scale=knobs.entropy_scale
    )

    def replay_loss(critic: Variables, features: Array) -> Array:
        bootstrap = targets.returns[0].reshape(batch.reward.shape)
        loss = replay_critic_loss(agent, critic, state.slow_critic, features, batch, bootstrap, knobs)
        return agent.config.critic.replay_scale * loss.mean()

    features = latent_features(posterior.states)
    replay_grad, features_grad = jax.grad(replay_loss, argnums=(0, 1))(params.critic, features)
    return (actor_grad, jax.tree.map(jnp.add, critic_grad, replay_grad)), features_grad, scale


def optimizer_step(agent: Agent, state: TrainState, grads: Params) -> TrainState:
    """The state after a step along these gradients; its key and return scale stay."""
    params, opt_state = {}, {}
    for name, param in vars(state.params).items():
        direction, opt_state[name] = agent.optimizer.update(getattr(grads, name), getattr(state.opt_state, name), param)
        rate = getattr(state.knobs, f"{name}_learning_rate")
        params[name] = optax.apply_updates(param, jax.tree.map(lambda x, rate=rate: -rate * x, direction))
    slow_rate = agent.config.critic.slow_rate
    slow_critic = jax.tree.map(
        lambda slow, fast: (1 - slow_rate) * slow + slow_rate * fast, state.slow_critic, params["critic"]
    )
    return dataclasses.replace(
        state, step=state.step + 1, params=Params(**params), slow_critic=slow_critic, opt_state=Params(**opt_state)
    )


class Parts:
    """Everything that it takes to time the parts: a train state of its own, environments, compiled programs."""

    def __init__(self, agent: Agent, config: Config, replay: Replay, *, seed: int) -> None:
        """Initialises all of it; the programs are compiled in the first round."""
        bound = functools.partial
        self._observe = jax.jit(bound(observe_grad, agent))
        self._world_model = jax.jit(bound(world_model_grad, agent))
        self._imagine = jax.jit(bound(imagine, agent))
        self._actor_critic = jax.jit(bound(actor_critic_grads, agent))
        self._optimizer = jax.jit(bound(optimizer_step, agent), donate_argnums=0)
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
        """Times every part once, on rows and keys that no round before had.

        Returns:
            Part -> milliseconds, for one update or one step. The difference `world_model_heads` can come out below 0.
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

        model, discount = state.params.world_model, state.knobs.discount
        observing, (_, posterior) = seconds_of(lambda: self._observe(model, batch, observe_key))
        starts = jax.block_until_ready(merge_time(posterior.states))
        imagining, dream = seconds_of(lambda: self._imagine(state.params, state.slow_critic, starts, dream_key))
        actor_critic, ((actor_grad, critic_grad), features_grad, scale) = seconds_of(
            lambda: self._actor_critic(state, dream, posterior, batch)
        )
        world_model, model_grad = seconds_of(
            lambda: self._world_model(model, batch, observe_key, discount, features_grad)
        )
        grads = Params(world_model=model_grad, actor=actor_grad, critic=critic_grad)
        optimizing, state = seconds_of(lambda: self._optimizer(state, grads))
        self._state = dataclasses.replace(state, return_scale=scale)
        return {
            "observe": observing,
            "world_model_heads": world_model - observing,
            "imagine": imagining,
            "actor_critic": actor_critic,
            "optimizer": optimizing,
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
