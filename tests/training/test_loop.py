"""The training loop: the train ratio to the row, one seed one run, and a resumed run that is the same run."""

import errno
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from rich.console import Console

from dreamerjax import cli
from dreamerjax.agent.agent import Agent, build_agent
from dreamerjax.config import Config
from dreamerjax.monitoring.diagnosis import Diagnosis
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.monitoring.terminal import Display, Progress
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import has_checkpoint, restore_raw
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runs.settings import combine, nested, read_flags
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.training import collector, evaluation, loop
from dreamerjax.training.learner import Learner, Updated
from dreamerjax.training.loop import Loop
from dreamerjax.types import TrainState

ROOT = Path(__file__).parents[2]
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


# What makes many runs cheap: each program is compiled once, and not optimised


class SharedLearner(Learner):
    """Takes over what an earlier run of the same agent has made: the first state, and the compiled updates."""

    fresh: ClassVar[dict[Any, Any]] = {}
    compiled: ClassVar[dict[Any, Any]] = {}

    def __init__(self, agent: Agent, *, seed: int, policy_device: jax.Device | None = None) -> None:
        if (agent, seed) not in self.fresh:
            super().__init__(agent, seed=seed)
            self.fresh[agent, seed] = dict(vars(self))
        vars(self).update(self.fresh[agent, seed])
        self.restore(jax.tree.map(jnp.copy, self.state))  # because the state is donated
        self._compiled, self._policy_device = {}, policy_device
        self._under_way, self._copies = deque(), deque()

    def compile(self, modes: Any, batches: Any) -> None:
        num_envs = self._policy_device is not None
        key = (self._agent.config, self._agent.spaces, modes, num_envs, str(jax.tree.map(np.shape, batches)))
        if key not in self.compiled:
            super().compile(modes, batches)
            while self.compiling:
                time.sleep(0.01)
            self.compiled[key] = self._compiled
        self._compiled = self.compiled[key]


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


class CountingLearner(SharedLearner):
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


@pytest.fixture(scope="module", autouse=True)
def shared_programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Learner", SharedLearner)
        patch.setattr(loop, "Diagnosis", SharedDiagnosis)
        patch.setattr(loop, "build_agent", AGENTS)
        patch.setattr(collector, "jit_policy", POLICIES)
        patch.setattr(evaluation, "jit_policy", POLICIES)
        yield


AGENTS = functools.cache(build_agent)
POLICIES = functools.cache(collector.jit_policy)


@pytest.fixture
def only_counting(monkeypatch: pytest.MonkeyPatch, shared_programs: None) -> None:
    monkeypatch.setattr(loop, "Learner", CountingLearner)


# One run


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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, shared_programs: None) -> Path:
    """The run that all others are compared with."""
    path = tmp_path_factory.mktemp("runs") / "uninterrupted"
    summary = play(path, config()).summary
    assert (summary["stopped"], summary["env_steps"], summary["updates"]) == ("budget", 60, 44)
    return path


# The train ratio


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize(
    ("ratio", "batch_size", "sequence_length", "updates", "num_envs"),
    [
        (8, 2, 4, 2, 1),
        (1, 2, 4, 1, 1),
        (0.3, 1, 2, 1, 1),
        (37.5, 3, 5, 2, 3),
        (200, 2, 4, 4, 2),
        (7, 2, 16, 3, 5),
    ],
)
def test_the_train_ratio_is_met_exactly(
    tmp_path: Path, ratio: float, batch_size: int, sequence_length: int, updates: int, num_envs: int
) -> None:
    run = play(
        tmp_path,
        config(
            f"--train-ratio={ratio}",
            f"--train.batch-size={batch_size}",
            f"--train.sequence-length={sequence_length}",
            f"--train.updates-per-dispatch={updates}",
            f"--env.num-envs={num_envs}",
            "--eval.every=0",
            "--log.every=1",
            "--env-steps=120",
        ),
    )
    dispatch, start = batch_size * sequence_length * updates, counters(tmp_path)["train_start"]
    learner = run.loop.learner
    assert isinstance(learner, CountingLearner)
    assert learner.rows == run.summary["updates"] * batch_size * sequence_length
    assert 120 <= run.summary["env_steps"] < 120 + num_envs
    missing = ratio * (run.summary["env_steps"] - start) - learner.rows
    assert 0 <= missing < dispatch

    history = [(row["step"], row["update"]) for row in metrics(tmp_path) if "train/loss" in row]
    assert len(history) == len(learner.modes), "a line for each dispatch"
    for step, update in history:
        replayed, earned = update * batch_size * sequence_length, ratio * (step - start)
        assert replayed <= earned, "never ahead"
        assert replayed + dispatch + ratio * num_envs > earned, "never behind by more than one step"


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize(
    ("prefill", "sequence_length", "num_envs", "start"), [(16, 4, 1, 16), (16, 4, 3, None), (0, 9, 1, 8), (8, 9, 1, 8)]
)
def test_the_prefill_ends_when_it_is_full_and_a_window_fits(
    tmp_path: Path, prefill: int, sequence_length: int, num_envs: int, start: int | None
) -> None:
    flags = [f"--train.prefill={prefill}", f"--train.sequence-length={sequence_length}", f"--env.num-envs={num_envs}"]
    play(tmp_path, config(*flags, "--eval.every=0", "--env.id=gym:Pendulum-v1"))  # its episodes are longer than this
    began = counters(tmp_path)["train_start"]
    assert prefill <= began < max(prefill, (sequence_length - 1) * num_envs) + num_envs
    assert start is None or began == start


def test_overlapped_collection_gives_the_same_run_twice_and_another_than_interleaved(tmp_path: Path) -> None:
    flags = ["--eval.every=0"]
    for name, collection in (("one", "overlapped"), ("two", "overlapped"), ("three", "interleaved")):
        run = play(tmp_path / name, config(*flags, f"--train.collection={collection}"))
        assert run.summary["updates"] == 44
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert metrics(tmp_path / "one") != metrics(tmp_path / "three")


def test_the_lines_of_metrics_tell_the_wait_for_data_and_the_memory(tmp_path: Path) -> None:
    run = play(tmp_path, config())
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "speed/data_wait_share" in row]
    assert rows
    assert all(0 <= row["speed/data_wait_share"] < 1 and row["speed/memory_mb"] > 10 for row in rows)
    assert any(row["speed/data_wait_share"] > 0 for row in rows)
    assert run.summary["first_update_seconds"] > 0


@pytest.mark.usefixtures("only_counting")
def test_world_model_warmup_comes_first_and_is_not_counted(tmp_path: Path) -> None:
    flags = ["--train.world-model-warmup=6", "--log.every=1", "--eval.every=0"]
    run = play(tmp_path / "whole", config(*flags))
    learner = run.loop.learner
    assert isinstance(learner, CountingLearner)
    assert learner.asked == ("world_model", "joint")
    assert learner.modes == ["world_model"] * 3 + ["joint"] * 22
    assert run.summary["updates"] == 6 + 44
    assert counters(tmp_path / "whole")["warmup_updates"] == 6
    first = [(row["step"], row["update"]) for row in metrics(tmp_path / "whole") if "train/loss" in row][:4]
    assert first == [(16, 4), (16, 6), (18, 8), (20, 10)]  # each without its newest dispatch, not to wait for it

    def in_warmup(looks: int, progress: Progress | None) -> bool:
        return progress is not None and progress.updates == 4

    run = play(tmp_path / "halves", config(*flags), in_warmup)
    assert (run.summary["stopped"], run.summary["updates"]) == ("interrupted", 4)
    run = play(tmp_path / "halves", config(*flags))
    assert run.loop.learner.modes == ["world_model"] + ["joint"] * 22
    assert metrics(tmp_path / "halves") == metrics(tmp_path / "whole")


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize("mode", ["world_model", "actor_critic"])
def test_a_mode_is_the_only_one(tmp_path: Path, mode: str) -> None:
    flags = [f"--train.mode={mode}", "--train.world-model-warmup=6", "--eval.every=0"]
    learner = play(tmp_path, config(*flags)).loop.learner
    assert isinstance(learner, CountingLearner)
    assert learner.asked == (mode,)
    assert set(learner.modes) == {mode}


# Evaluation and the goal


@pytest.mark.usefixtures("only_counting")
def test_evaluations_come_when_due_and_at_the_end(tmp_path: Path) -> None:
    play(tmp_path, config())
    evaluations = [(row["step"], row["eval/episodes"]) for row in metrics(tmp_path) if "eval/episodes" in row]
    assert evaluations == [(20, 2), (40, 2), (60, 2), (60, 3)]


@pytest.mark.usefixtures("only_counting")
def test_a_solved_run_ends_early_and_stays_ended(tmp_path: Path) -> None:
    for _ in range(2):
        run = play(tmp_path, config("--env.solve-return=1"))
        summary = run.summary
        assert run.last_progress.phase == "solved"
        assert (summary["stopped"], summary["solved"], summary["env_steps"]) == ("solved", True, 20)
        assert summary["solved_at"]["env_steps"] == 20
        assert summary["eval"]["episodes"] == 3, "confirmed by as many episodes as count"
    evaluations = [(row["step"], row["eval/episodes"]) for row in metrics(tmp_path) if "eval/episodes" in row]
    assert evaluations == [(20, 2), (20, 3)]


@pytest.mark.usefixtures("only_counting")
def test_a_solved_run_goes_on_if_it_shall(tmp_path: Path) -> None:
    summary = play(tmp_path, config("--env.solve-return=1", "--no-stop-when-solved")).summary
    assert (summary["stopped"], summary["solved"], summary["env_steps"]) == ("budget", True, 60)
    assert summary["solved_at"]["env_steps"] == 20


@pytest.mark.usefixtures("only_counting")
def test_a_goal_out_of_reach_and_no_goal(tmp_path: Path) -> None:
    for goal in ("501", "none"):
        summary = play(tmp_path / goal, config(f"--env.solve-return={goal}")).summary
        assert (summary["stopped"], summary["solved"], summary["solved_at"]) == ("budget", False, None)


# The same run again


def test_the_same_seed_gives_the_same_run(tmp_path: Path, uninterrupted: Path) -> None:
    play(tmp_path, config())
    assert_same_run(tmp_path, uninterrupted)
    names = {name for row in metrics(tmp_path) for name in row}
    assert {"train/reconstruction_loss", "train/actor_loss", "episode/return", "eval/return_mean"} <= names


def test_checkpoints_leave_no_trace_in_the_run(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a checkpoint is written depends on the clock, so it must not show."""
    steps, save = [], checkpoint.save

    def save_some(folder: Path, step: int, *rest: Any, **options: Any) -> None:
        steps.append(step)
        if step % 20 == 0:  # to save time
            save(folder, step, *rest, **options)

    monkeypatch.setattr(checkpoint, "save", save_some)
    monkeypatch.setattr(loop, "PAUSE_BETWEEN_SAVES", 0)  # however long one takes
    play(tmp_path, config("--log.checkpoint-seconds=1e-9", "--log.checkpoints-kept=2"))
    assert set(steps) >= set(range(17, 61)), "after every step"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["0000000040", "0000000060"]
    assert_same_run(tmp_path, uninterrupted)


def test_another_seed_gives_another_run(tmp_path: Path, uninterrupted: Path) -> None:
    play(tmp_path, config("--seed=1"))
    left, right = metrics(tmp_path), metrics(uninterrupted)
    assert left != right
    name = "train/reconstruction_loss"
    losses = [{row[name] for row in rows if name in row} for rows in (left, right)]
    assert losses[0]
    assert losses[1]
    assert not losses[0] & losses[1]


INTERRUPTIONS: dict[str, Callable[[int, Progress | None], bool]] = {
    "in the prefill": lambda looks, progress: looks == 9,
    "before the first update": lambda looks, progress: progress is not None and progress.env_steps == 17,
    "between two lines of metrics": lambda looks, progress: progress is not None and progress.updates == 8,
    "in an evaluation": lambda looks, progress: (
        progress is not None and progress.phase == "evaluating" and progress.env_steps == 40
    ),
    "in the last evaluation": lambda looks, progress: (
        progress is not None and progress.phase == "evaluating" and progress.updates == 44
    ),
}


@pytest.mark.parametrize("when", INTERRUPTIONS)
def test_resuming_equals_no_interruption(tmp_path: Path, uninterrupted: Path, when: str) -> None:
    first = play(tmp_path, config(), INTERRUPTIONS[when])
    assert first.summary["stopped"] == "interrupted"
    assert has_checkpoint(tmp_path / "checkpoints")
    assert metrics(tmp_path) == metrics(uninterrupted)[: len(metrics(tmp_path))]
    second = play(tmp_path, config())
    assert second.summary["stopped"] == "budget"
    steps, updates = first.summary["env_steps"], first.summary["updates"]
    told = [note for note in second.notes if not note.startswith(("Alert at", "Observation ", "Action: "))]
    assert told == [f"Resumed at {steps} environment steps and {updates} updates."]
    assert_same_run(tmp_path, uninterrupted)


def test_an_interruption_between_two_evaluations_shows_in_nothing(tmp_path: Path) -> None:
    """A promising evaluation is confirmed by a second one; both belong together."""
    solvable = config("--env.solve-return=1")

    def confirming(looks: int, progress: Progress | None) -> bool:
        nonlocal evaluating
        evaluating += progress is not None and progress.phase == "evaluating"
        return evaluating > 25  # the first plays two episodes of 8 to 11 steps

    evaluating = 0
    assert play(tmp_path / "halves", solvable, confirming).summary["stopped"] == "interrupted"
    for path in (tmp_path / "halves", tmp_path / "whole"):
        summary = play(path, solvable).summary
        assert (summary["stopped"], summary["solved_at"]["env_steps"]) == ("solved", 20)
    assert_same_run(tmp_path / "halves", tmp_path / "whole")


def test_many_interruptions_equal_none(tmp_path: Path, uninterrupted: Path) -> None:
    for _ in range(20):
        if play(tmp_path, config(), lambda looks, progress: looks == 40).summary["stopped"] == "budget":
            break
    else:
        pytest.fail("no progress")
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    """Twice 60 steps are 120 steps; only the end of the first half also shows in its metrics."""
    for path, flags in ((tmp_path / "halves", ["--env-steps=60"]), (tmp_path / "halves", []), (tmp_path / "whole", [])):
        summary = play(path, config("--env-steps=120", *flags)).summary
        assert (summary["stopped"], summary["env_steps"]) == ("budget", 60 if flags else 120)
    outcomes = [
        [row for row in metrics(path) if "train/value_mean" not in row]
        for path in (tmp_path / "halves", tmp_path / "whole")
    ]
    assert [row for row in outcomes[0] if (row["step"], row.get("eval/episodes")) != (60, 3)] == outcomes[1]
    assert_same_state(tmp_path / "halves", tmp_path / "whole")


# An environment that cannot be saved


class Forgetful(CartPoleEnv, gymnasium.utils.EzPickle):
    """Its pickle says how it was made, and nothing of where it is."""

    def __init__(self) -> None:
        gymnasium.utils.EzPickle.__init__(self)
        super().__init__()


@pytest.fixture
def forgetful() -> Iterator[str]:
    gymnasium.register("Forgetful-v0", Forgetful)
    yield "gym:Forgetful-v0"
    del gymnasium.registry["Forgetful-v0"]


def test_an_environment_that_cannot_be_saved_starts_anew(tmp_path: Path, forgetful: str) -> None:
    settings = config(env=forgetful)
    first = play(tmp_path, settings, lambda looks, progress: progress is not None and progress.updates == 8)
    with np.load(newest(tmp_path) / "arrays.npz") as stored:
        before = {name: stored[name] for name in stored.files}
    cut = len(before["replay.reward"])  # rows so far; the next one will be the first of new episodes
    assert not before["replay.is_last"][-1].any(), "in the middle of an episode"
    learned = restore_raw(tmp_path / "checkpoints")[0]["params"]

    second = play(tmp_path, settings)
    assert second.notes[0].endswith("; new episodes begin: the environments cannot be saved.")
    assert (second.summary["stopped"], second.summary["env_steps"]) == ("budget", 60)
    assert second.summary["updates"] == 44
    assert first.summary["updates"] == 8
    with np.load(newest(tmp_path) / "arrays.npz") as stored:
        after = {name: stored[name] for name in stored.files}
    np.testing.assert_array_equal(after["replay.obs.state"][:cut], before["replay.obs.state"])
    assert after["replay.is_last"][cut - 1].all()
    assert not after["replay.is_terminal"][cut - 1].any(), "as by a time limit"
    assert after["replay.is_first"][cut].all()
    assert int((~after["replay.is_first"]).sum()) == 60, "a row for each environment step"
    episodes = [row["episode/length"] for row in metrics(tmp_path) if "episode/length" in row]
    assert sum(episodes) <= 60
    assert jax.tree.structure(learned) == jax.tree.structure(restore_raw(tmp_path / "checkpoints")[0]["params"])


# Errors


@pytest.mark.usefixtures("only_counting")
@pytest.mark.parametrize("disk", ["works", "is full"])
def test_whatever_ends_a_run_it_is_saved_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    def fails(*arguments: object) -> None:
        if disk == "is full":
            monkeypatch.setattr(checkpoint, "_write", full)
        raise ZeroDivisionError("nobody foresaw it")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    play(tmp_path, config("--env-steps=30"))
    monkeypatch.setattr(CountingLearner, "update", fails)
    monkeypatch.setattr(loop.Evaluator, "close", fails)
    with pytest.raises(ZeroDivisionError, match="nobody foresaw it") as caught:
        play(tmp_path, config())
    (note,) = caught.value.__notes__
    steps = checkpoint.steps(tmp_path / "checkpoints")
    if disk == "works":
        assert max(steps) > 30
        assert note == f"Saved at {max(steps)} environment steps; the same command with --run-dir {tmp_path} goes on."
    else:
        assert max(steps) == 30
        assert "could not be written" in note
        assert note.endswith("The newest checkpoint is at 30 steps.")


def test_an_error_of_the_thread_that_compiles_the_policy_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise MemoryError("the policy is too large")

    monkeypatch.setattr(collector.Collector, "compile_policy", fails)
    with pytest.raises(MemoryError, match="the policy is too large"):
        play(tmp_path, config())


# Real signals

SIGNALLING = """
import os, pathlib
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Signalling(CartPoleEnv):
    '''Sends signals to its own process at one of its steps.'''

    steps = 0

    def step(self, action):
        self.steps += 1
        at, *signals = os.environ.get("SIGNALS", "0").split()
        if self.steps == int(at):
            pathlib.Path(os.environ["SIGNALLED"]).touch()
            for number in signals:
                os.kill(os.getpid(), int(number))
        return super().step(action)

gymnasium.register("Signalling-v0", Signalling)
"""


# As run.py, but JAX runs before the back-end is selected, as it does in the tests' own process. With the flags that
# `select_backend` would give to XLA, the last bits would differ, and programs that are compiled already be of no use.
# A checkpoint that took long, on a busy machine, would put off the next one: here each is due when it is asked for.
COMMAND_LINE = (
    "import jax, sys; jax.devices(); from dreamerjax.training import loop; loop.PAUSE_BETWEEN_SAVES = 0; "
    "from dreamerjax.cli import command_line; command_line()"
)


@pytest.fixture
def signalling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An environment in a module of its own, for this process and its children."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "signalling.py").write_text(SIGNALLING)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield "gym:signalling:Signalling-v0"
    gymnasium.registry.pop("Signalling-v0", None)
    sys.modules.pop("signalling", None)


class Ended(NamedTuple):
    code: int
    output: str
    errors: str


def train_and_signal(tmp_path: Path, arguments: list[str], step: int, *numbers: int, before: str = "") -> Ended:
    """Runs the command line, after some other code, in a process that gets signals at a step of its environment."""
    marker = tmp_path / "signalled"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + COMMAND_LINE, *arguments],
        cwd=ROOT,
        env=os.environ | {"SIGNALS": " ".join(map(str, (step, *numbers))), "SIGNALLED": str(marker)},
        capture_output=True,
        text=True,
    )
    assert marker.exists(), done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def command(tmp_path: Path, signalling: str) -> list[str]:
    """A complete command line, and the run folder as its last argument."""
    return ["--env", signalling, "--backend", "cpu", *FLAGS, "--run-dir", str(tmp_path / "run")]


# The updates are compiled, but the thread that does it never ends.
ENDLESS_COMPILATION = (
    "import threading; from dreamerjax.training.learner import Learner; compile_updates = Learner._compile; "
    "Learner._compile = lambda *given: (compile_updates(*given), threading.Event().wait()); "
)


def test_sigterm_while_compiling_saves_and_ends_without_waiting(tmp_path: Path, command: list[str]) -> None:
    ended = train_and_signal(tmp_path, command, 9, signal.SIGTERM, before=ENDLESS_COMPILATION)
    assert (ended.code, ended.errors) == (128 + signal.SIGTERM, "")
    assert "Interrupted" in ended.output
    run = tmp_path / "run"
    assert json.loads((run / "summary.json").read_text())["env_steps"] == 9
    assert not (run / ".pid").exists(), "the folder was given back"
    assert cli.main(command) == 0
    assert cli.main([*command[:-1], str(tmp_path / "whole")]) == 0
    assert_same_run(run, tmp_path / "whole")


def test_a_second_signal_ends_at_once(tmp_path: Path, command: list[str]) -> None:
    ended = train_and_signal(tmp_path, command, 9, signal.SIGTERM, signal.SIGINT)
    assert ended.code == 128 + signal.SIGINT
    assert re.fullmatch(
        r"Ended at once, without saving: the [89] environment steps of this run are lost\.\n", ended.errors
    )
    assert not (tmp_path / "run" / "summary.json").exists(), "it ended before it could save"
    assert not has_checkpoint(tmp_path / "run" / "checkpoints")


def test_a_second_signal_says_what_is_saved(tmp_path: Path, command: list[str]) -> None:
    assert cli.main([*command, "--env-steps", "20"]) == 0
    ended = train_and_signal(tmp_path, [*command, "--env-steps", "40"], 12, signal.SIGINT, signal.SIGINT)
    assert ended.code == 128 + signal.SIGINT
    assert ended.errors.startswith("Ended at once: what was learned up to 20 environment steps is saved in ")
    assert f"the same command with --run-dir {tmp_path / 'run'} goes on." in ended.errors
    assert len(ended.errors.splitlines()) == 1
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [20]


def test_a_killed_run_resumes_with_the_same_command(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    always = [*command, "--log.checkpoint-seconds=1e-9"]
    ended = train_and_signal(tmp_path, always, 24, signal.SIGKILL)
    assert ended.code == -signal.SIGKILL
    _, restored = restore_raw(tmp_path / "run" / "checkpoints")
    assert restored.step == 23
    assert restored.skipped == ()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 23, "upd')  # the line that it was about to write
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "Resumed at 23 environment steps" in capsys.readouterr().out
    assert cli.main([*command[:-1], str(tmp_path / "whole")]) == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(looks: int, progress: Progress | None) -> bool:
        if progress is not None and progress.updates == 8:
            raise KeyboardInterrupt  # as if killed: nothing is saved
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_rescue", lambda *given: "")
        with pytest.raises(KeyboardInterrupt):
            play(tmp_path, config(), dies)
    assert metrics(tmp_path)
    assert not checkpoint.has_checkpoint(tmp_path / "checkpoints")
    play(tmp_path, config())
    assert_same_run(tmp_path, uninterrupted)
