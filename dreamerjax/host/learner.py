"""The learner owns the train state and the compiled updates."""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dreamerjax.agent.agent import Agent, init_train_state
from dreamerjax.agent.train_step import Mode, train_steps
from dreamerjax.types import Batch, TrainState


class Learner:
    """Makes updates, U in one dispatch; they are compiled in a thread, so that the program can answer meanwhile."""

    def __init__(self, agent: Agent, *, seed: int) -> None:
        """Initialises the parameters."""
        self.state: TrainState = jax.jit(functools.partial(init_train_state, agent))(jax.random.PRNGKey(seed))
        self.compile_seconds = 0.0
        self._agent = agent
        self._compiled: dict[Mode, Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]] = {}
        self._errors: list[BaseException] = []
        self._thread: threading.Thread | None = None

    def compile(self, modes: tuple[Mode, ...], batches: Batch) -> None:
        """Starts to compile the updates of these modes for batches of these shapes [U, T, B, ...]."""
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (self.state, batches))
        self._thread = threading.Thread(target=self._compile, args=(modes, shapes), daemon=True)
        self._thread.start()

    @property
    def compiling(self) -> bool:
        """Whether updates are still being compiled.

        Raises:
            Exception: what the compiler raised.
        """
        if self._errors:
            raise self._errors[0]
        return self._thread is not None and self._thread.is_alive()

    def update(self, batches: Batch, mode: Mode) -> dict[str, jax.Array]:
        """Makes U updates on batches [U, T, B, ...]; returns their mean metrics, which may still be under way."""
        self.state, metrics = self._compiled[mode](self.state, batches)
        return metrics

    def adopt(self, other: TrainState) -> None:
        """Goes on from what another run learned: its parameters and return scale, with a fresh optimizer and key."""
        params, slow_critic, return_scale = jax.tree.map(
            jnp.copy, (other.params, other.slow_critic, other.return_scale)
        )
        self.state = dataclasses.replace(self.state, params=params, slow_critic=slow_critic, return_scale=return_scale)

    def _compile(self, modes: tuple[Mode, ...], shapes: tuple[Any, Any]) -> None:
        start = time.perf_counter()
        try:
            for mode in modes:
                step = functools.partial(train_steps, self._agent, mode=mode)
                self._compiled[mode] = jax.jit(step, donate_argnums=0).lower(*shapes).compile()
        except BaseException as error:  # handed to the main thread by `compiling`
            self._errors.append(error)
        self.compile_seconds += time.perf_counter() - start
