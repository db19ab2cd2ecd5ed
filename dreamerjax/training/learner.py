"""The learner contains the train state and the compiled updates."""

import dataclasses
import functools
import gc
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent, init_train_state
from dreamerjax.agent.train_step import Mode, train_steps
from dreamerjax.runtime import compile_cache
from dreamerjax.runtime.background import Background
from dreamerjax.types import Batch, Device, Metrics, Params, StoredLatent, TrainState

DISPATCHES_AHEAD = 2  # dispatches that the host may queue: enough to keep the device busy, in bounded memory


class Updated(NamedTuple):
    """What U updates return in addition to the next state; it may still be computed."""

    metrics: Metrics  # means
    latents: StoredLatent | None  # [U, T, B, ...] of the batches, if these have a context
    params: Params | None  # a copy for the policy, if that has a separate device


Update = Callable[[TrainState, Batch], tuple[TrainState, Updated]]


class Learner:
    """Makes updates, U in one dispatch; they are compiled in a thread, so that the program stays responsive.

    The first access to the state initialises the parameters: that program is large, too, and is compiled in parallel
    with the updates. `update` returns before the device is done: the host samples and collects while the device trains.
    """

    def __init__(self, agent: Agent, *, seed: int, policy_device: Device | None = None) -> None:
        """Computes and compiles nothing yet.

        Args:
            agent: the static parts.
            seed: of the parameters and of all updates.
            policy_device: where the policy acts while the learner's device computes updates, with the parameters of one
                dispatch before (see `policy_params`); None: on the learner's device, with the newest.
        """
        self._seed = seed
        self._state: TrainState | None = None
        self.compile_seconds = 0.0
        self._agent, self._policy_device = agent, policy_device
        self._compiled: dict[Mode, Update] = {}
        self._compiling: Background | None = None
        self._under_way: deque[Metrics] = deque()
        self._copies: deque[Params] = deque()  # of the parameters on the policy's device: (lagging,) arriving

    def compile(self, modes: tuple[Mode, ...], batches: Batch) -> None:
        """Starts to compile the updates of these modes for batches of these shapes [U, T, B, ...]."""
        batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches)
        self._compiling = Background(functools.partial(self._compile, modes, (self.shapes, batches)))

    @functools.cached_property
    def shapes(self) -> TrainState:
        """Shapes and dtypes of the state, as `jax.ShapeDtypeStruct`s; nothing is initialised for them."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self._init.out_info)

    @property
    def state(self) -> TrainState:
        """The newest state, which may still be computed; the first access initialises it."""
        state = self._state
        if state is None:
            # It runs once: on CPUs, a lower optimization level compiles in 2.9 s instead of 4.9, for the same numbers.
            quickly: Any = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
            self._state = state = self._init.compile(quickly)(jax.random.PRNGKey(self._seed))
        return state

    @property
    def compiling(self) -> bool:
        """Whether updates are still being compiled.

        Raises:
            Exception: what the compiler raised.
        """
        return self._compiling is not None and self._compiling.running

    @property
    def policy_params(self) -> Params:
        """The policy's parameters: the newest, or on a separate device those of one dispatch before.

        The lag is always exactly one dispatch, so the same seed gives the same run.
        """
        if self._policy_device is None:
            return self.state.params
        if not self._copies:
            self._copies.append(jax.device_put(jax.tree.map(jnp.copy, self.state.params), self._policy_device))
        return self._copies[0]

    def update(self, batches: Batch, mode: Mode) -> Updated:
        """Makes U updates on batches [U, T, B, ...]."""
        self._state, updated = self._compiled[mode](self.state, batches)
        if updated.params is not None:
            self._copies.append(jax.device_put(updated.params, self._policy_device))
            if len(self._copies) > 2:
                self._copies.popleft()
        self._under_way.append(updated.metrics)
        if len(self._under_way) > DISPATCHES_AHEAD:
            jax.block_until_ready(self._under_way.popleft())
        return updated

    def restore(self, state: TrainState) -> None:
        """Continues from a saved state, also on the policy's device."""
        self._state = state
        self._copies.clear()

    def adopt(self, other: TrainState, *, frozen: bool) -> None:
        """Starts from the parameters and the return scale of another run, with a new optimizer state and key.

        Where the world model is `frozen`, its continue head keeps the discount that it learned.
        """
        params, slow_critic, return_scale = jax.tree.map(
            jnp.copy, (other.params, other.slow_critic, other.return_scale)
        )
        knobs = self.state.knobs
        if frozen:
            knobs = dataclasses.replace(knobs, cont_discount=jnp.copy(other.knobs.cont_discount))
        self.restore(
            dataclasses.replace(
                self.state, params=params, slow_critic=slow_critic, return_scale=return_scale, knobs=knobs
            )
        )

    def _compile(self, modes: tuple[Mode, ...], shapes: tuple[Any, Any]) -> None:
        start = time.perf_counter()
        gc.disable()  # tracing makes many lasting objects: garbage collection would cost a tenth of its time
        try:
            for mode in modes:
                self._compiled[mode] = self._lower(mode, shapes).compile()
        finally:
            gc.enable()
        self.compile_seconds += time.perf_counter() - start

    @functools.cached_property
    def _init(self) -> jax.stages.Lowered:
        """The program that makes the first state from a key."""
        init = functools.partial(init_train_state, self._agent)
        of = ("init", self._agent.config, self._agent.spaces)
        return compile_cache.lower(init, (jax.ShapeDtypeStruct((2,), jnp.uint32),), of=of)

    def _lower(self, mode: Mode, shapes: tuple[TrainState, Batch]) -> jax.stages.Lowered:
        """The program that makes U updates."""
        of = ("update", mode, self._agent.config, self._agent.spaces, self._policy_device)
        return compile_cache.lower(self._program(mode), shapes, of=of, donate=(0,))

    def _program(self, mode: Mode) -> Update:
        copies_parameters = self._policy_device is not None

        def update(state: TrainState, batches: Batch) -> tuple[TrainState, Updated]:
            state, metrics, latents = train_steps(self._agent, state, batches, mode=mode)
            # A second output is a copy of the parameters; the next update reuses the state's memory.
            return state, Updated(metrics, latents, state.params if copies_parameters else None)

        return update
