"""The diagnosis during training: computes measures of learning from rows of the replay buffer."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from dreamerjax.agent.agent import Agent
from dreamerjax.agent.diagnostics import diagnose
from dreamerjax.config import TrainConfig
from dreamerjax.replay.replay import Replay
from dreamerjax.runtime.background import Background
from dreamerjax.types import Batch, Metrics, PRNGKey, TrainState

NEWEST_ROWS = 1024  # at most, over all environments


class Diagnosis:
    """Calls `diagnose` with the newest rows and with a random batch; compiled in a thread during training."""

    def __init__(self, agent: Agent, config: TrainConfig, replay: Replay, *, num_envs: int, seed: int) -> None:
        """Does not compile yet."""
        self._config, self._replay, self._seed = config, replay, seed
        length = config.sequence_length
        # As many as there are before the first update, so that one compiled program is enough.
        windows = max(1, min(NEWEST_ROWS, config.prefill) // (length * num_envs))
        self._steps = windows * length
        # It runs rarely: on a CPU, a lower optimization level saves more compile time than it costs.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        self._diagnose = jax.jit(functools.partial(diagnose, agent, sequence_length=length), compiler_options=options)
        self._compiled: Callable[..., Metrics] = self._diagnose
        self._compiling: Background | None = None

    def compile(self, state: TrainState) -> None:
        """Starts to compile for a state of these shapes; the replay must contain enough rows for a window."""
        inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, *self._inputs(0)))
        self._compiling = Background(functools.partial(self._compile, inputs))

    def run(self, state: TrainState, now: int) -> dict[str, float]:
        """The measures at environment step `now`. Deterministic; uses no shared random generator."""
        if self._compiling is not None:
            self._compiling.wait()
        return {name: float(x) for name, x in jax.device_get(self._compiled(state, *self._inputs(now))).items()}

    def _inputs(self, now: int) -> tuple[Batch, Batch, PRNGKey]:
        entropy = np.random.SeedSequence((self._seed, now))
        newest = self._replay.newest(self._steps)
        replayed = self._replay.peek(
            self._config.batch_size, self._config.sequence_length, np.random.default_rng(entropy)
        )
        return newest, replayed, jax.random.PRNGKey(int(entropy.generate_state(1)[0]))

    def _compile(self, inputs: tuple) -> None:
        self._compiled = self._diagnose.lower(*inputs).compile()
