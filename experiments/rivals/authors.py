"""Times training updates of the authors' DreamerV3 (github.com/danijar/dreamerv3), for comparison.

One update is what their training loop does for one: take a batch from the agent's own stream, which checks it and puts
it on the device in a background thread, and call `agent.train`. Their replay buffer is not part of it.
"""

import argparse
import inspect
import queue
import sys
import tempfile
from collections.abc import Iterator

import adapter_protocol as protocol
import jax
import numpy as np

TRAINED = ("enc/", "dyn/", "dec/", "rew/", "con/", "pol/", "val/")  # the modules that their optimizer trains
REPLAY_CONTEXT = 1  # their default: one more row before each sequence, which gives the initial latent state
STEP_ID_BYTES = 20


def accept_positional_jit_options() -> bool:
    """Lets their code run on JAX above 0.5.3, which takes the options of `jax.jit` by keyword only."""
    jit = jax.jit
    keyword_only = inspect.signature(jit).parameters["in_shardings"].kind is inspect.Parameter.KEYWORD_ONLY
    if keyword_only:
        names = ("in_shardings", "out_shardings", "static_argnums", "static_argnames", "donate_argnums")
        jax.jit = lambda *args, **options: jit(*args[:1], **dict(zip(names, args[1:], strict=False)), **options)
    return keyword_only


class AuthorsAgent:
    """Their agent with their default settings, but for the size, the precision, the device and the profiler."""

    name = "dreamerv3 (authors)"
    notes = (
        "agent.stream and agent.train as their training loop calls them, with their replay context of one row, the "
        "outputs of the previous call fetched to the host, and their metrics; their JAX profiler, which would trace "
        "updates 100 to 120, is off"
    )

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.source is None:
            protocol.refuse("--source must name a clone of danijar/dreamerv3")
        sys.path.insert(0, str(arguments.source))
        shimmed = accept_positional_jit_options()
        import elements
        import ruamel.yaml
        from dreamerv3.agent import Agent

        configs = ruamel.yaml.YAML(typ="safe").load((arguments.source / "dreamerv3" / "configs.yaml").read_text())
        config = elements.Config(configs["defaults"]).update(configs[f"size{arguments.size}"])
        config = config.update({"jax.platform": arguments.device, "jax.compute_dtype": arguments.precision})
        assert config.agent.imag_length == protocol.HORIZON
        assert config.replay_context == REPLAY_CONTEXT

        def space(dtype: type, shape: tuple[int, ...] = (), *limits: int) -> elements.Space:
            return elements.Space(dtype, shape, *limits)

        observation = (np.uint8, protocol.IMAGE_SHAPE) if arguments.image else (np.float32, (protocol.VECTOR_SIZE,))
        flags = {name: space(bool) for name in ("is_first", "is_last", "is_terminal")}
        settings = elements.Config(
            **config.agent,
            jax=dict(config.jax, profiler=False),
            logdir=tempfile.mkdtemp(prefix="authors-"),
            seed=0,
            batch_size=arguments.batch,
            batch_length=arguments.length,
            replay_context=REPLAY_CONTEXT,
            report_length=config.report_length,
            replica=0,
            replicas=1,
        )
        self.agent = Agent(
            {"observation": space(*observation), "reward": space(np.float32), **flags},
            {"action": space(np.int32, (), 0, protocol.ACTIONS)},
            settings,
        )
        self.arguments = arguments
        self.version = f"{protocol.commit_of(arguments.source)}, jax {jax.__version__}"
        self.parameters = sum(x.size for name, x in self.agent.params.items() if name.startswith(TRAINED))
        self.settings = {"jit_shim": shimmed, "replay_context": REPLAY_CONTEXT}
        self.rng = np.random.default_rng(0)
        self.batches: queue.SimpleQueue[protocol.Batch] = queue.SimpleQueue()
        self.prepare(1)  # The stream works one batch ahead, so that each timed update puts one batch on the device.
        self.stream = iter(self.agent.stream(self._replay()))
        self.carry = self.agent.init_train(arguments.batch)

    def _replay(self) -> Iterator[protocol.Batch]:
        while True:
            yield self.batches.get()

    def prepare(self, updates: int) -> None:
        """Makes batches of the rows that their replay buffer would give, identifiers and latent states included."""
        shape = (self.arguments.batch, self.arguments.length + REPLAY_CONTEXT)
        for _ in range(updates):
            batch = protocol.random_batch(self.rng, *shape, self.arguments.image)
            batch["consec"] = np.zeros(shape, np.int32)
            batch["stepid"] = self.rng.integers(0, 256, (*shape, STEP_ID_BYTES), np.uint8)
            batch["dyn/deter"], batch["dyn/stoch"] = protocol.random_latents(self.rng, *shape, self.arguments.size)
            self.batches.put(batch)

    def update(self) -> None:
        """Makes one update of everything."""
        self.carry, _, _ = self.agent.train(self.carry, next(self.stream))
        jax.block_until_ready((self.agent.params, self.carry))

    def peak_memory_mb(self) -> float:
        """The peak of JAX's own pool on a GPU, else of the process."""
        statistics = jax.devices()[0].memory_stats() if self.arguments.device == "cuda" else None
        return statistics["peak_bytes_in_use"] / 2**20 if statistics else protocol.host_peak_mb()


if __name__ == "__main__":
    protocol.serve(__doc__, AuthorsAgent)
