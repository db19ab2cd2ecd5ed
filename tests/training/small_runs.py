"""Whole runs that are small, and cheap: each program is compiled once for all of them, and not optimised."""

import functools
import io
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from dreamerjax.agent.agent import Agent, build_agent
from dreamerjax.config import Config
from dreamerjax.monitoring.diagnosis import Diagnosis
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.monitoring.progress import Progress
from dreamerjax.monitoring.terminal import Display
from dreamerjax.runs.checkpoint import has_checkpoint, restore_raw
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runs.settings import combine, nested, read_flags
from dreamerjax.runtime import compile_cache
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.training import collector
from dreamerjax.training.learner import Learner, Updated
from dreamerjax.training.loop import Loop
from dreamerjax.types import TrainState

PREFILL = 16


FLAGS = f"""
    --agent.model.deter=16 --agent.model.hidden=8 --agent.model.groups=4 --agent.model.classes=4 --agent.model.blocks=4
    --agent.model.bins=31 --agent.model.encoder-layers=1 --agent.model.decoder-layers=1 --agent.model.actor-layers=1
    --agent.model.critic-layers=1 --agent.model.prior-layers=1 --agent.returns.imagination-horizon=3
    --agent.optimizer.warmup-updates=0 --agent.precision=float32
    --env-steps=60 --train.prefill={PREFILL} --train-ratio=8 --train.batch-size=2 --train.sequence-length=4
    --train.updates-per-dispatch=2 --replay.capacity=1000
    --eval.every=20 --eval.episodes=2 --eval.final-episodes=3 --eval.num-envs=2
    --log.every=10 --log.checkpoint-seconds=1000 --no-log.tensorboard --no-log.report --alerts.data-wait-share=1
""".split()


TINY = read_flags(FLAGS)


class SharedProgram:
    """A lowered program that is compiled once."""

    lock = threading.Lock()

    def __init__(self, lowered: jax.stages.Lowered) -> None:
        self.lowered, self.out_info = lowered, lowered.out_info
        self.compiled: jax.stages.Compiled | None = None

    def compile(self, options: Any = None) -> jax.stages.Compiled:
        with self.lock:
            if self.compiled is None:
                self.compiled = self.lowered.compile(options)
            return self.compiled


PROGRAMS: dict[str, SharedProgram] = {}


def shared_lower(function: Callable[..., Any], inputs: Any, *, of: Any, donate: tuple[int, ...] = ()) -> SharedProgram:
    """As `compile_cache.lower`, whose programs depend on the inputs' shapes and on `of`."""
    key = str((of, inputs, donate))
    if key not in PROGRAMS:
        PROGRAMS[key] = SharedProgram(compile_cache.lower(function, inputs, of=of, donate=donate))
    return PROGRAMS[key]


class SharedDiagnosis(Diagnosis):
    """Takes over what was compiled for an earlier run of the same agent."""

    programs: ClassVar[dict[Any, Any]] = {}

    def __init__(self, agent: Agent, *given: Any, **more: Any) -> None:
        super().__init__(agent, *given, **more)
        self._key = (agent.config, agent.spaces)

    def compile(self, state: TrainState) -> None:
        super().compile(state)
        assert self._compiling is not None
        self._compiling.wait()  # else it may outlive the tests, and Python cannot end while XLA compiles

    def _compile(self, inputs: tuple) -> None:
        key = (*self._key, str(jax.tree.map(np.shape, inputs)))
        if key not in self.programs:
            super()._compile(inputs)
            self.programs[key] = self._compiled
        self._compiled = self.programs[key]


class CountingLearner(Learner):
    """Only pretends to learn, and remembers what it was asked for."""

    modes: list[str]
    rows: int

    def compile(self, modes: Any, batches: Any) -> None:
        self.asked = modes
        self.modes, self.rows = [], 0

    def update(self, batches: Any, mode: Any) -> Updated:
        assert mode in self.asked
        self.modes.append(mode)
        self.rows += batches.reward.size
        return Updated({"loss": jnp.zeros(())}, None, None)


AGENTS = functools.cache(build_agent)


POLICIES = functools.cache(collector.jit_policy)


class Watched(Display):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("test", console=Console(file=io.StringIO()))
        self.progress: Progress | None = None
        self.notes: list[str] = []

    def update(self, progress: Progress) -> None:
        super().update(progress)
        self.progress = progress

    def note(self, text: str) -> None:
        super().note(text)
        self.notes.append(text)


class Impatient(Interrupt):
    """Behaves as if Ctrl-C came when a condition on (looks so far, progress) first holds."""

    def __init__(self, condition: Callable[[int, Progress | None], bool], display: Watched) -> None:
        self._condition, self._display, self._looks, self._came = condition, display, 0, None

    @property
    def requested(self) -> signal.Signals | None:
        self._looks += 1
        if self._came is None and self._condition(self._looks, self._display.progress):
            self._came = signal.SIGINT
        return self._came


class Run(NamedTuple):
    loop: Loop
    summary: dict[str, Any]
    notes: list[str]
    last_progress: Progress


def never(looks: int, progress: Progress | None) -> bool:
    return False


def config(*flags: str, env: str = "cartpole") -> Config:
    return combine([*read_env(env), TINY, read_flags(flags)])


def play(path: Path, config: Config, until: Callable[[int, Progress | None], bool] = never) -> Run:
    """Trains in a folder, or goes on there, until the end or an interruption."""
    with RunFolder.open(path) as folder, Watched() as display:
        one = Loop(config, folder, Backend("cpu", "a test"), display, Impatient(until, display))
        if has_checkpoint(folder.checkpoints):
            one.resume()
        folder.write_config(nested(config))
        summary = one.run()
        assert summary == json.loads(folder.summary_path.read_text())
        assert display.progress is not None
        return Run(one, summary, display.notes, display.progress)


def metrics(path: Path) -> list[dict[str, Any]]:
    """The metrics of a run without those that are times."""
    rows = read_metrics(path / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if name != "wall_seconds" and not name.startswith("speed/")}
        for row in rows
    ]


def counters(path: Path) -> dict[str, Any]:
    return json.loads((newest(path) / "host.json").read_text())["counters"]


def newest(path: Path) -> Path:
    return max((path / "checkpoints").iterdir())


def assert_same_run(path: Path, other: Path) -> None:
    """The same metrics, apart from times, the same alerts, and the same train state to the bit."""
    assert metrics(path) == metrics(other)
    assert (path / "alerts.jsonl").read_text() == (other / "alerts.jsonl").read_text()
    assert_same_state(path, other)


def assert_same_state(path: Path, other: Path) -> None:
    left, right = restore_raw(path / "checkpoints")[0], restore_raw(other / "checkpoints")[0]
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)
