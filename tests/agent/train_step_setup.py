"""An agent in the middle of learning, random batches, and the compiled update."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import jit

from dreamerjax.agent.agent import Agent, build_agent, init_knobs, init_train_state
from dreamerjax.agent.train_step import train_step
from dreamerjax.config import ActorConfig, AgentConfig, CriticConfig, OptimizerConfig, ReturnsConfig, WorldModelConfig
from dreamerjax.types import ActionSpec, Batch, Knobs, ObsSpec, ReturnScale, Spaces, TrainState
from tests.tiny import MODEL, random_like

T, B, H, A = 5, 3, 3, 3
U = 3
OBS = (ObsSpec("state", (4,)),)
CONFIG = AgentConfig(
    model=dataclasses.replace(MODEL, reward_layers=0, cont_layers=0, prior_layers=0, posterior_layers=0),
    world_model=WorldModelConfig(learning_rate=1e-2, free_nats=0.5),
    actor=ActorConfig(
        learning_rate=3e-3,
        entropy_scale=0.1,
        entropy_schedule="cosine",
        entropy_final_fraction=0.2,
        entropy_decay_updates=100,
    ),
    critic=CriticConfig(learning_rate=5e-3),
    returns=ReturnsConfig(imagination_horizon=H),
    # A larger epsilon than the published one: rounding errors are not blown up to whole steps.
    optimizer=OptimizerConfig(warmup_updates=0, epsilon=1e-6),
)
PARTS = ("world_model", "actor", "critic")


def make_agent(kind, config: AgentConfig = CONFIG) -> Agent:
    return build_agent(config, Spaces(obs=OBS, actions=(ActionSpec(kind, A),)))


def random_batch(kind, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    is_first, is_last = np.zeros((T, B), bool), np.zeros((T, B), bool)
    is_first[0, 0] = is_first[3, 1] = is_last[2, 1] = is_last[4, 2] = True
    one_hot, vector = np.eye(A)[rng.integers(A, size=(T, B))], 2 * rng.normal(size=(T, B, A))
    return Batch(
        obs={spec.name: jnp.asarray(5 * rng.normal(size=(T, B, *spec.shape)), jnp.float32) for spec in OBS},
        prev_action=jnp.asarray(one_hot if kind == "discrete" else vector, jnp.float32),
        reward=jnp.asarray(3 * rng.normal(size=(T, B)), jnp.float32),
        is_first=jnp.asarray(is_first),
        is_last=jnp.asarray(is_last),
        is_terminal=jnp.asarray(is_last & (np.arange(B) == 1)),
    )


def random_state(agent: Agent) -> TrainState:
    """A state in the middle of learning: random parameters, a slow critic that lags, a return scale, update 50."""
    shapes = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(0))
    params, slow_critic = random_like((shapes.params, shapes.slow_critic), scale=0.7, small_returns=True)
    fresh = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return fresh.replace(
        step=jnp.asarray(50, jnp.int32),
        params=params,
        slow_critic=slow_critic,
        return_scale=ReturnScale(low=jnp.float32(-1.0), high=jnp.float32(2.0)),
        knobs=make_knobs(agent.config),
        key=jax.random.PRNGKey(3),
    )


def make_knobs(config: AgentConfig, **changes: float) -> Knobs:
    return init_knobs(config).replace(**{name: jnp.float32(value) for name, value in changes.items()})


class Setup(NamedTuple):
    """An agent with a state, batches, and its joint update, which may be traced but once."""

    agent: Agent
    state: TrainState
    batches: list[Batch]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]


def update(agent: Agent, state: TrainState, batch: Batch, **options: Any) -> tuple[TrainState, dict[str, Any]]:
    """`train_step` on windows without a context, of which no latent states come back."""
    state, metrics, latents = train_step(agent, state, batch, **options)
    assert latents is None
    return state, metrics


def make_setup(kind) -> Setup:
    agent = make_agent(kind)

    @functools.partial(chex.assert_max_traces, n=1)
    def traced(result):
        return result

    def step(state, batch):
        return traced(update(agent, state, batch))

    return Setup(agent, random_state(agent), [random_batch(kind, seed) for seed in range(U)], jit(step))


SETUPS: dict[str, Setup] = {}


def shared_setup(kind) -> Setup:
    """The set-up of a kind of action. All files share it, because its update takes long to trace and compile."""
    if kind in SETUPS and not SETUPS[kind].step._cache_size():  # type: ignore[attr-defined]
        # A benchmark has cleared JAX's caches: the update must be traced again.
        del SETUPS[kind]
        chex.clear_trace_counter()
    if kind not in SETUPS:
        SETUPS[kind] = make_setup(kind)
    return SETUPS[kind]


def run(setup: Setup, state: TrainState | None = None) -> tuple[TrainState, list[dict[str, Any]]]:
    """One update on each of the batches."""
    state, history = state or setup.state, []
    for batch in setup.batches:
        state, metrics = setup.step(state, batch)
        history.append(metrics)
    return state, history


def same(left, right) -> bool:
    """Bit for bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)
