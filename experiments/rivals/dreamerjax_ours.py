"""Times training updates of dreamerjax itself, through the learner that its training loop uses."""

import argparse
import functools
import sys
import time
from pathlib import Path

import adapter_protocol as protocol
import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from dreamerjax.agent.agent import build_agent
from dreamerjax.config import AgentConfig, Config, ModelConfig, ReturnsConfig, TrainConfig, resolve
from dreamerjax.runtime.backend import select_backend
from dreamerjax.training.learner import Learner
from dreamerjax.types import ActionSpec, Batch, ObsSpec, Spaces


class Ours:
    """The agent with the default settings, U updates per dispatch as in the training loop."""

    name = "dreamerjax"
    updates_per_call = TrainConfig().updates_per_dispatch
    notes = (
        f"one dispatch of {updates_per_call} updates at a time, its metrics included; windows start from the zero state"
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        backend = select_backend(arguments.device)
        model = ModelConfig(size=arguments.size)
        returns = ReturnsConfig(imagination_horizon=protocol.HORIZON)
        config = resolve(Config(agent=AgentConfig(model=model, returns=returns, precision=arguments.precision)))
        shape = protocol.IMAGE_SHAPE if arguments.image else (protocol.VECTOR_SIZE,)
        spaces = Spaces((ObsSpec("observation", shape),), (ActionSpec("discrete", protocol.ACTIONS),))
        self.arguments, self.device = arguments, backend.device
        self.learner = Learner(build_agent(config.agent, spaces), seed=0)
        self.version = f"this checkout, jax {jax.__version__}"
        self.parameters = sum(x.size for x in jax.tree.leaves(self.learner.state.params))
        self.settings = {"updates_per_dispatch": self.updates_per_call}
        self.rng = np.random.default_rng(0)
        self.batches: list[Batch] = []
        self.prepare(1)
        self.learner.compile(("joint",), self.batches[0])
        while self.learner.compiling:
            time.sleep(0.05)

    def prepare(self, updates: int) -> None:
        """Makes the batches of that many updates, [U, T, B, ...] each."""
        dispatches = -(-updates // self.updates_per_call)
        self.batches = [
            jax.tree.map(lambda *rows: np.stack(rows), *[self._batch() for _ in range(self.updates_per_call)])
            for _ in range(dispatches)
        ]

    def _batch(self) -> Batch:
        size, length = self.arguments.batch, self.arguments.length
        rows = protocol.random_batch(self.rng, size, length, self.arguments.image)
        time_major = functools.partial(np.swapaxes, axis1=0, axis2=1)
        action = np.eye(protocol.ACTIONS, dtype=np.float32)[rows["action"]]
        return Batch(
            obs={"observation": time_major(rows["observation"])},
            prev_action=time_major(action),
            **{name: time_major(rows[name]) for name in ("reward", "is_first", "is_last", "is_terminal")},
        )

    def update(self) -> None:
        """Makes one dispatch, the transfer of its batches included."""
        self.learner.update(self.batches.pop(), "joint")
        jax.block_until_ready(self.learner.state)

    def peak_memory_mb(self) -> float:
        """The peak of JAX's own pool on a GPU, else of the process."""
        statistics = jax.devices()[0].memory_stats() if self.arguments.device == "cuda" else None
        return statistics["peak_bytes_in_use"] / 2**20 if statistics else protocol.host_peak_mb()


if __name__ == "__main__":
    protocol.serve(__doc__, Ours)
