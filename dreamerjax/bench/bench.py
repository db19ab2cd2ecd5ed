"""Measures the speed of an update, its share of the machine's peak, and its stages.

Everything is measured in rounds. A round is one dispatch of U updates, a few products of large matrices, and every
stage once. The speed of a shared machine can change by a factor of two within minutes, but changes little within a
round. Ratios within a round are reliable: `share_of_peak`, and the sum of the stages divided by the whole.
"""

import contextlib
import datetime
import functools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.agent.train_step import train_step
from dreamerjax.bench.flops import matmul_flop
from dreamerjax.bench.settings import BenchSettings
from dreamerjax.bench.synthetic import filled_replay
from dreamerjax.bench.update_breakdown import BETWEEN_UPDATES, OF_UPDATE, Parts, seconds_of
from dreamerjax.replay.replay import Replay
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.installed import versions
from dreamerjax.runtime.xla_cache import enable_compilation_cache
from dreamerjax.training.learner import Learner
from dreamerjax.training.reporter import git_commit
from dreamerjax.types import Batch

SEED = 0
CPU_SIZES, ACCELERATOR_SIZES = (1024, 2048), (2048, 4096, 8192)  # rows of the matrices of the peak
TRIES = 3  # products of each size in a round; the best counts
POLL_SECONDS = 0.01

Say = Callable[[str], None]


def measure(settings: BenchSettings, backend: Backend, *, say: Say = lambda text: None) -> dict[str, Any]:
    """Measures everything.

    Args:
        settings: the work; "auto" precision counts as float32.
        backend: already selected.
        say: told what goes on.

    Returns:
        A JSON-able dictionary, the keys of which `dreamerjax/bench/table.py` puts into words. Measured figures are
        {"median", "quartiles"} over the rounds, but for compile times and memory, which are measured once.
    """
    config, train = settings.config, settings.config.train
    say("filling a replay")
    agent = build_agent(config.agent, settings.spaces)
    replay = filled_replay(config.replay, settings.spaces, num_envs=config.env.num_envs, seed=SEED)
    shapes = replay.batch_shapes(train.batch_size, train.sequence_length, train.updates_per_dispatch)
    learner, once = _measured_once(agent, replay, shapes, settings, backend, say)

    update, gflops, part_rounds = _rounds(agent, learner, replay, settings, backend, say)
    gflop = 1e-9 * update_flop(agent, shapes)
    together = [sum(part_round[name] for name in OF_UPDATE) for part_round in part_rounds]
    return once | {
        "parameters": parameter_count(agent),
        "gflop_per_update": gflop,
        "updates_per_second": spread([1 / seconds for seconds in update]),
        "transitions_per_second": spread([train.batch_size * train.sequence_length / seconds for seconds in update]),
        "matmul_peak_gflops": spread(gflops),
        "share_of_peak": spread([gflop / seconds / rate for seconds, rate in zip(update, gflops, strict=True)]),
        "update_ms": spread([1e3 * seconds for seconds in update]),
        "parts_together_ms": spread(together),
        "parts_share_of_update": spread([ms / (1e3 * s) for ms, s in zip(together, update, strict=True)]),
        "parts_ms": {name: spread([each[name] for each in part_rounds]) for name in (*OF_UPDATE, *BETWEEN_UPDATES)},
        "settings": settings.as_json(),
        "backend": backend.platform,
        "device": backend.device,
        "versions": versions(),
        "git_commit": git_commit(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _measured_once(
    agent: Agent, replay: Replay, shapes: Batch, settings: BenchSettings, backend: Backend, say: Say
) -> tuple[Learner, dict[str, Any]]:
    """A compiled learner; compile times without and with a cache, and the memory of a training run."""
    with _fresh_cache():
        say("compiling the update")
        learner, cold = _compile(agent, shapes)
        _update_seconds(learner, replay, settings)
        memory, memory_of = _peak_memory(backend)  # before the stages are compiled: a training run has no more
        say("compiling the update again, from the cache")
        jax.clear_caches()
        learner, warm = _compile(agent, shapes)
    _update_seconds(learner, replay, settings)
    return learner, {
        "compile_seconds_cold": cold,
        "compile_seconds_warm": warm,
        "peak_memory_mb": memory,
        "peak_memory_of": memory_of,
    }


def _rounds(
    agent: Agent, learner: Learner, replay: Replay, settings: BenchSettings, backend: Backend, say: Say
) -> tuple[list[float], list[float], list[dict[str, float]]]:
    """Seconds of an update, GFLOP/s of matrix products, and milliseconds of all stages; one entry per round."""
    config = settings.config
    say("compiling its stages")
    parts, peak = Parts(agent, config, replay, seed=SEED), MatmulPeak(config.agent.precision, backend.platform)
    parts.round()
    peak.gflops()
    update, gflops, part_rounds = [], [], []
    for number in range(settings.rounds):
        say(f"round {number + 1} of {settings.rounds}")
        update.append(_update_seconds(learner, replay, settings) / config.train.updates_per_dispatch)
        gflops.append(peak.gflops())
        part_rounds.append(parts.round())
    parts.close()
    return update, gflops, part_rounds


def spread(values: Sequence[float]) -> dict[str, Any]:
    """{"median": x, "quartiles": [lower, upper]}."""
    lower, median, upper = (float(x) for x in np.percentile(values, (25, 50, 75)))
    return {"median": median, "quartiles": [lower, upper]}


def parameter_count(agent: Agent) -> int:
    """Numbers that are trained; the slow critic is a copy and does not count."""
    state = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(SEED))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))


def update_flop(agent: Agent, batches: Batch) -> int:
    """Floating-point operations of one joint update's matrix products and convolutions (see `matmul_flop`).

    Args:
        agent: the static parts.
        batches: shapes [U, T, B, ...].
    """
    state = jax.eval_shape(functools.partial(init_train_state, agent), jax.random.PRNGKey(SEED))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches)
    return matmul_flop(jax.make_jaxpr(functools.partial(train_step, agent))(state, batch).jaxpr)


class MatmulPeak:
    """What the machine can do at its best: products of large square matrices in the type that the networks use."""

    def __init__(self, precision: str, platform: str) -> None:
        """Makes the matrices.

        Args:
            precision: "bfloat16", or anything else for float32.
            platform: of the back-end; an accelerator takes larger matrices, and more of them in one call.
        """
        sizes, self._chain = (CPU_SIZES, 1) if platform == "cpu" else (ACCELERATOR_SIZES, 8)
        generator = np.random.default_rng(SEED)
        dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
        # Of variance 1 / size, so that a chain of products neither grows nor vanishes.
        self._matrices = [
            jnp.asarray(generator.standard_normal((size, size), np.float32) / math.sqrt(size), dtype) for size in sizes
        ]
        self._multiply = jax.jit(self._products)

    def gflops(self) -> float:
        """The best rate just now, in 1e9 operations per second, over all sizes and tries."""
        rates = []
        for matrix in self._matrices:
            work = 1e-9 * self._chain * 2 * matrix.shape[0] ** 3
            rates += [work / seconds_of(lambda matrix=matrix: self._multiply(matrix, matrix))[0] for _ in range(TRIES)]
        return max(rates)

    def _products(self, left: jax.Array, right: jax.Array) -> jax.Array:
        for _ in range(self._chain):
            left = left @ right
        return left


def _update_seconds(learner: Learner, replay: Replay, settings: BenchSettings) -> float:
    """Seconds of one dispatch on rows just drawn, from numpy to the finished state."""
    train = settings.config.train
    batches = replay.sample(train.batch_size, train.sequence_length, train.updates_per_dispatch)
    return seconds_of(lambda: (learner.update(batches, "joint"), learner.state))[0]


def _compile(agent: Agent, shapes: Batch) -> tuple[Learner, float]:
    """A fresh learner and the seconds until its update was compiled, as the training loop compiles it."""
    learner = Learner(agent, seed=SEED)
    jax.block_until_ready(learner.state)
    start = time.perf_counter()
    learner.compile(("joint",), shapes)
    while learner.compiling:
        time.sleep(POLL_SECONDS)
    return learner, time.perf_counter() - start


@contextlib.contextmanager
def _fresh_cache() -> Iterator[None]:
    """Compiled programs are kept in an empty folder, which goes at the end."""
    before = jax.config.values["jax_compilation_cache_dir"]
    shortest = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    with tempfile.TemporaryDirectory() as folder:
        enable_compilation_cache(Path(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        try:
            yield
        finally:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)
            enable_compilation_cache(Path(before) if before else None)


def _peak_memory(backend: Backend) -> tuple[float | None, str]:
    """The most memory used so far, in MB of 10^6 bytes, and whose."""
    if backend.platform != "cpu":
        stats = jax.devices()[0].memory_stats() or {}
        peak = stats.get("peak_bytes_in_use")
        return peak / 1e6 if peak else None, "device, peak_bytes_in_use, after compiling and the first updates"
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6, "process, ru_maxrss, after compiling and the first updates"
