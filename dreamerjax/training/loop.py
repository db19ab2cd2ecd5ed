"""The training loop: collect on demand, update, evaluate, save; and on again from where it was.

Phases: random prefill -> world-model warm-up (optional) -> training until the task is solved or the budget spent.

Training is one thread that never waits for the device unless it must. A dispatch of U updates returns at once; then

- interleaved (on a CPU, which has no cores to spare), the next environment steps wait for its parameters;
- overlapped (on an accelerator), they are made meanwhile by a policy on the host's CPU, whose parameters lag by exactly
  one dispatch, and the next batches are drawn and moved to the device. No race decides anything: the same seed gives
  the same run either way.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dreamerjax.agent.agent import build_agent, init_knobs
from dreamerjax.agent.train_step import Mode
from dreamerjax.config import Config, family_key, flatten
from dreamerjax.envs import EnvError, VectorEnv, make_env
from dreamerjax.envs import Event as EnvEvent
from dreamerjax.monitoring.diagnosis import Diagnosis
from dreamerjax.monitoring.terminal import Display
from dreamerjax.replay.replay import make_replay
from dreamerjax.replay.saving import regrouped
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot
from dreamerjax.runs.lineage import Event, Lineage, as_host, changes, changes_told, lineage_of
from dreamerjax.runs.load import LoadedAgent, spaces_as_host
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.background import Background
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.memory import check_replay_fits, give_back_memory, memory_sentence
from dreamerjax.runtime.profiler import Profiler
from dreamerjax.runtime.sentence import reason_of, sentence_of
from dreamerjax.training.collector import Collector
from dreamerjax.training.evaluation import Evaluation, Evaluator, Onlooker, cut_sentence
from dreamerjax.training.learner import Learner
from dreamerjax.training.pacing import Surprise, next_modes
from dreamerjax.training.reporter import Films, Reporter, git_commit

POLL_SECONDS = 0.05  # how often a wait looks for Ctrl-C
PAUSE_BETWEEN_SAVES = 20  # times as long as one of them takes, at least
WORTH_TELLING = 100e6  # bytes of a replay


@dataclasses.dataclass
class Counters:
    """Where a run stands, beside what its parts know themselves; saved with every checkpoint."""

    updates: int = 0
    warmup_updates: int = 0  # of them, of the world model alone, before training
    extra_updates: int = 0  # of them, of the world model alone, for its pacing
    train_start: int = 0  # environment steps when training began; the train ratio counts from here
    evaluated_at: int = 0  # environment steps of the last evaluation
    filmed_at: int = 0  # environment steps of the last films
    compile_seconds: float = 0.0  # of earlier processes
    solved_at: dict[str, Any] | None = None


class Stop(Exception):
    """Training ends here; the argument says why: "solved", "budget" or "interrupted"."""


class _Onlooker(Onlooker):
    """Shows where an evaluation is, and ends it where the user wants to stop."""

    def __init__(self, reporter: Reporter, interrupt: Interrupt) -> None:
        self._reporter, self._interrupt = reporter, interrupt

    def interrupted(self) -> bool:
        return self._interrupt.requested is not None

    def progress(self, finished: int, wanted: int, steps: int) -> None:
        self._reporter.show(f"{finished} of {wanted} episodes, step {steps:,}")

    def event(self, event: EnvEvent) -> None:
        if event.note:
            self._reporter.note_once(event.topic, event.note)


class Loop:
    """One run, from its first step or from its newest checkpoint to its end."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        backend: Backend,
        display: Display,
        interrupt: Interrupt,
        *,
        profile: bool = False,
        film: Callable[[LoadedAgent, VectorEnv | None], Films] | None = None,
    ):
        """Makes environments, replay and agent; nothing runs yet.

        Args:
            config: resolved.
            folder: held by this process.
            backend: already selected.
            display: entered.
            interrupt: entered.
            profile: write traces of the profiler into the run folder.
            film: makes pictures of the agent as it is, in environments that are lent or (None) its own; asked every
                `log.video_every` environment steps and at the end.

        Raises:
            EnvError: the environment does not exist or is not supported.
            ConfigError: the replay does not fit on the device.
        """
        self._config, self._folder, self._backend, self._interrupt = config, folder, backend, interrupt
        # One stream of random numbers for each consumer, all from the one seed.
        env_seed, replay_seed, policy_seed, agent_seed, self._eval_seed, diagnosis_seed = (
            int(seed) for seed in np.random.SeedSequence(config.seed).generate_state(6)
        )
        num_envs = config.env.num_envs
        self._env = make_env(config.env, num_envs=num_envs, seed=env_seed)
        check_replay_fits(config.replay, self._env.spaces, config.agent.model)
        self._replay = make_replay(
            config.replay,
            self._env.spaces,
            num_envs=num_envs,
            seed=replay_seed,
            model=config.agent.model,
            sequence_length=config.train.sequence_length,
            folder=folder.path / "replay",
        )
        agent = build_agent(config.agent, self._env.spaces)
        acting, device = agent, None
        if config.train.collection == "overlapped":
            device = jax.local_devices(backend="cpu")[0]
            acting = build_agent(dataclasses.replace(config.agent, precision="float32"), self._env.spaces)
        self._collector = Collector(acting, self._env, self._replay, seed=policy_seed, device=device)
        self.learner = Learner(agent, seed=agent_seed, policy_device=device)
        self._profiler = Profiler(folder.path / "profile" if profile else None)
        self._evaluator = Evaluator(
            agent,
            config.env,
            num_envs=min(config.eval.num_envs, config.eval.episodes),
            max_episode_steps=config.eval.max_episode_steps,
            env=self._env if config.eval.in_training_env else None,
        )
        self._diagnosis = Diagnosis(agent, config.train, self._replay, num_envs=num_envs, seed=diagnosis_seed)
        self._surprise = Surprise(config.train.pacing_surprise)
        self._reporter = Reporter(config, folder, display)
        self._agent, self._film = agent, film if config.log.video_every else None
        self._counters = Counters()
        self._lineage: Lineage = (Event("begun", str(folder.path), 0, None, {}, git_commit()),)
        self._metrics_bytes = 0
        self._saved_at, self._save_seconds = time.perf_counter(), 0.0
        self._saved: tuple[int, int] | None = None  # environment steps and updates of the newest checkpoint

    def resume(self) -> None:
        """Goes on from the newest good checkpoint of the run folder.

        Raises:
            CheckpointError: all are damaged, or they are of another model.
        """
        config, folder = self._config, self._folder
        family = family_key(config)
        snapshot, restored = checkpoint.restore(folder.checkpoints, self.learner.shapes, family=family)
        self._counters = Counters(**snapshot.host["counters"])
        self._lineage = lineage_of(snapshot.host)
        if changed := changes(snapshot.host.get("settings", flatten(config)), config):
            event = Event("resumed", str(folder.path), restored.step, None, changed, git_commit())
            self._lineage = (*self._lineage, event)
        if "surprise" in snapshot.host:
            self._surprise.load(snapshot.host["surprise"])
        self._metrics_bytes = snapshot.host["reporter"]["metrics_bytes"]
        # The knobs are settings, which may have changed since; what a frozen head has learned is not.
        knobs, stored = init_knobs(config.agent), snapshot.train_state
        if config.train.mode == "actor_critic":
            knobs = dataclasses.replace(knobs, cont_discount=stored.knobs.cont_discount)
        self.learner.restore(dataclasses.replace(stored, knobs=knobs))
        rows = checkpoint.unprefixed(snapshot.arrays, "replay.")
        self._replay.load(*regrouped(rows, snapshot.host["replay"], config.env.num_envs))
        problem = self._collector.load(
            checkpoint.unprefixed(snapshot.arrays, "collector."), snapshot.host["collector"], snapshot.opaque
        )
        self._reporter.load(snapshot.host["reporter"])
        self._tell_reporter()
        for sentence in restored.skipped:
            self._reporter.note(f"{sentence[:1].upper()}{sentence[1:]}.")
        self._reporter.note(
            f"Resumed at {restored.step:,} environment steps and {self._counters.updates:,} updates"
            + (f"; new episodes begin: {problem}." if problem else ".")
        )
        if told := changes_told(snapshot.host.get("settings", {}), config):
            self._reporter.note(f"Settings that have changed since: {told}.")

    def start_from(self, source: LoadedAgent) -> None:
        """Begins with what another run of the same family has learned: a fork."""
        self.learner.adopt(source.state, frozen=self._config.train.mode == "actor_critic")
        changed = changes(flatten(source.config), self._config)
        self._lineage = (
            *source.lineage,
            Event("forked", str(self._folder.path), source.env_steps, str(source.run_dir), changed, git_commit()),
        )
        self._reporter.note(f"Starts from {source.run_dir} at {source.env_steps:,} environment steps.")
        told = changes_told(flatten(source.config), self._config)
        self._reporter.note(f"Its settings, but for {told}." if told else "Its settings, all of them.")

    def run(self) -> dict[str, Any]:
        """Trains until the task is solved, the budget is spent or the user stops it.

        Returns:
            The summary, which is also written to the run folder.

        Raises:
            EnvError: the environment misbehaves.
            CheckpointError: a checkpoint cannot be written.
            RunFolderError: metrics or summary cannot be written.
            Exception: whatever else goes wrong; a note of it says whether the run was saved.
        """
        try:
            self._reporter.open(keep_bytes=self._metrics_bytes)
            try:
                return self._run_phases()
            except BaseException as error:  # whatever happens, nothing that was learned is lost
                error.add_note(self._rescue(error))
                raise
        finally:
            self._close()

    def _run_phases(self) -> dict[str, Any]:
        train = self._config.train
        warm_up = train.mode == "joint" and self._counters.warmup_updates < train.world_model_warmup
        for line in self._env.told:
            self._reporter.note(line)
        if self._replay.bytes_at_capacity >= WORTH_TELLING:
            self._reporter.note(memory_sentence(self._replay.bytes_at_capacity, self._config.replay.capacity))
        try:
            shapes = self._replay.batch_shapes(train.batch_size, train.sequence_length, train.updates_per_dispatch)
            alone = warm_up or (train.mode == "joint" and train.pacing != "fixed")
            self.learner.compile(("world_model", "joint") if alone else (train.mode,), shapes)
            policy = Background(self._compile_policy)
            self._prefill()
            self._wait_for_compilation(policy)
            if warm_up:
                self._warm_up()
            self._train()
            raise AssertionError("training ends by Stop alone")
        except Stop as stop:
            return self._finish(str(stop))

    def _rescue(self, error: BaseException) -> str:
        """Saves the run, where it can be, after the error that ends it; returns what the user should know of it."""
        steps = self._collector.env_steps
        if isinstance(error, CheckpointError):
            return self._newest_checkpoint()
        try:
            if self._saved != (steps, self._counters.updates):
                self._reporter.enter("saving")
                self._save()
        except Exception as second:  # it must not hide the first one
            reason, _, _ = str(second).partition("\n")
            return f"{reason or type(second).__name__} {self._newest_checkpoint()}"
        return f"Saved at {steps:,} environment steps; the same command with --run-dir {self._folder.path} goes on."

    def last_words(self) -> str:
        """What is saved, and what is lost, where the process ends now, without saving: a sentence."""
        steps, folder = self._collector.env_steps, self._folder.path
        try:
            newest = self._newest_step()
        except OSError as error:
            return f"Ended at once, without saving; the checkpoints cannot be read: {error}."
        if newest is None:
            return f"Ended at once, without saving: the {steps:,} environment steps of this run are lost."
        saved = f"Ended at once: what was learned up to {newest:,} environment steps is saved in {folder}"
        lost = f"the {steps - newest:,} steps after that are lost" if steps > newest else "no step is lost"
        return f"{saved}, and {lost}; the same command with --run-dir {folder} goes on."

    def _newest_step(self) -> int | None:
        return max(checkpoint.steps(self._folder.checkpoints), default=None)

    def _newest_checkpoint(self) -> str:
        try:
            newest = self._newest_step()
        except OSError as error:
            return f"The checkpoints cannot be read: {error}."
        return "There is no checkpoint yet." if newest is None else f"The newest checkpoint is at {newest:,} steps."

    def _close(self) -> None:
        """Closes everything; what cannot be closed must not hide the error that ends the run."""
        for part in (self._profiler, self._reporter, self._evaluator, self._env):
            try:
                part.close()
            except Exception as error:
                self._reporter.note(f"Not closed: {type(error).__name__}: {error}")

    # Phases

    def _prefill(self) -> None:
        train = self._config.train
        while self._collector.env_steps < train.prefill or not self._replay.can_sample(train.sequence_length):
            self._collect(random=True)
            self._reporter.show()
            self._check_interrupt()

    def _compile_policy(self) -> None:
        """Makes the first parameters and compiles the policy; in a thread, beside the updates and the prefill."""
        self._collector.compile_policy(self.learner.policy_params)

    def _wait_for_compilation(self, policy: Background) -> None:
        while self.learner.compiling or policy.running:
            self._reporter.enter("compiling")
            self._check_interrupt()
            time.sleep(POLL_SECONDS)

    def _warm_up(self) -> None:
        self._reporter.enter("world-model warm-up")
        while self._counters.warmup_updates < self._config.train.world_model_warmup:
            self._update("world_model")
            self._counters.warmup_updates += self._config.train.updates_per_dispatch
            self._after_step()

    def _train(self) -> None:
        train, counters = self._config.train, self._counters
        self._reporter.enter("training")
        start = counters.train_start = counters.train_start or self._collector.env_steps
        if counters.solved_at and train.stop_when_solved:
            raise Stop("solved")
        if self._config.eval.diagnose and self._config.eval.every:  # it belongs to the evaluations
            self._diagnosis.compile(self.learner.state)
        rows_per_update = train.batch_size * train.sequence_length
        while True:
            self._evaluate_if_due()
            self._make_films_if_due()
            # The train ratio, exactly: a dispatch is made as soon as the environment steps have earned its rows.
            earned = train.ratio * (self._collector.env_steps - start)
            counted = counters.updates - counters.warmup_updates - counters.extra_updates
            if earned - rows_per_update * counted >= rows_per_update * train.updates_per_dispatch:
                self._make_updates(counted // train.updates_per_dispatch)
            elif self._collector.env_steps < train.env_steps:
                self._collect(random=False)
            else:
                raise Stop("budget")
            self._after_step()

    def _finish(self, reason: str) -> dict[str, Any]:
        """The last evaluation, the last checkpoint, the summary."""
        try:
            if reason == "budget":
                self._evaluate_and_judge(self._config.eval.final_episodes)
        except Stop as stop:
            reason = str(stop)
        if reason != "interrupted":
            self._reporter.log()
        else:
            self._reporter.enter("saving")
        self._save()
        if reason == "solved":
            self._reporter.enter("solved")
        seconds = self._counters.compile_seconds + self.learner.compile_seconds
        summary = self._reporter.summary(
            self._backend, stopped=reason, solved_at=self._counters.solved_at, compile_seconds=seconds
        )
        self._folder.write_summary(summary)
        if reason != "interrupted":
            self._make_films()
        return summary

    # Steps of a phase

    def _collect(self, *, random: bool) -> None:
        steps, rows = self._collector.env_steps, self._replay.rows_added
        episodes = self._collector.step(None if random else self.learner.policy_params)
        self._reporter.collected(steps=self._collector.env_steps - steps, rows=self._replay.rows_added - rows)
        self._tell_reporter()
        for episode in episodes:
            self._reporter.episode_ended(episode)
        self._reporter.heard(self._collector.take_news())

    def _make_updates(self, dispatch: int) -> None:
        """One dispatch that counts for the train ratio, and before it those that its pacing asks for."""
        train = self._config.train
        *extra, mode = next_modes(train, dispatch, surprised=bool(self._surprise))
        for more in extra:
            self._update(more)
            self._counters.extra_updates += train.updates_per_dispatch
        self._update(mode)

    def _update(self, mode: Mode) -> None:
        train = self._config.train
        with self._reporter.waiting_for_data():
            batches = self._replay.sample(train.batch_size, train.sequence_length, train.updates_per_dispatch)
            batches = jax.device_put(batches)
        updated = self.learner.update(batches, mode)
        self._replay.refresh(updated.latents)
        self._profiler.dispatched(updated.metrics)
        self._counters.updates += train.updates_per_dispatch
        self._tell_reporter()
        self._reporter.updated(updated.metrics)
        if train.pacing == "surprise":  # the other rules never wait for the device
            self._surprise.updated(float(updated.metrics["kl"]))

    def _after_step(self) -> None:
        self._reporter.log_if_due()
        self._reporter.show()
        # A large replay takes a while to save, and is saved the less often.
        pause = PAUSE_BETWEEN_SAVES * self._save_seconds if self._save_seconds > 1 else 0
        if time.perf_counter() - self._saved_at >= max(self._config.log.checkpoint_seconds, pause):
            self._save()
        self._check_interrupt()

    def _evaluate_if_due(self) -> None:
        config, now = self._config, self._collector.env_steps
        if not config.eval.every or now - self._counters.evaluated_at < config.eval.every:
            return
        evaluation = self._evaluate(config.eval.episodes)
        target = config.env.solve_return
        confirming = None
        if target is not None and evaluation.return_mean >= target and not self._counters.solved_at:
            # Promising: more episodes, from starts that it has not seen, decide.
            confirming = self._evaluate(config.eval.final_episodes)
        # Only now: an interrupted evaluation leaves no trace, and is made again.
        self._counters.evaluated_at = now
        self._reporter.evaluated(evaluation)
        self._diagnose()
        give_back_memory()
        if confirming is not None:
            self._reporter.evaluated(confirming)
            self._judge(confirming)
            if self._counters.solved_at and config.train.stop_when_solved:
                raise Stop("solved")

    def _diagnose(self) -> None:
        if not self._config.eval.diagnose or not self._counters.updates:
            return
        found = self._diagnosis.run(self.learner.state, self._collector.env_steps)
        self._surprise.diagnosed(found["world_model_loss_newest"], found["world_model_loss_replay"])
        self._reporter.diagnosed(found)

    def _evaluate_and_judge(self, episodes: int) -> None:
        evaluation = self._evaluate(episodes)
        self._reporter.evaluated(evaluation)
        self._judge(evaluation)

    def _judge(self, evaluation: Evaluation) -> None:
        target = self._config.env.solve_return
        if target is not None and evaluation.return_mean >= target and not self._counters.solved_at:
            self._counters.solved_at = {
                "env_steps": self._collector.env_steps,
                "updates": self._counters.updates,
                "wall_seconds": round(self._reporter.wall_seconds, 3),
            }

    def _evaluate(self, episodes: int) -> Evaluation:
        self._reporter.enter("evaluating")
        seed = np.random.SeedSequence((self._eval_seed, self._collector.env_steps, episodes)).generate_state(1)[0]
        onlooker = _Onlooker(self._reporter, self._interrupt)
        params = self.learner.state.params
        with self._lent_env():
            evaluation = self._evaluator.run(params, episodes=episodes, seed=int(seed), onlooker=onlooker)
        if evaluation is None:
            raise Stop("interrupted")
        self._reporter.enter("training")
        if cut := cut_sentence(evaluation, self._config.eval.max_episode_steps):
            self._reporter.note_once("episodes cut", cut)
        return evaluation

    @contextlib.contextmanager
    def _lent_env(self) -> Iterator[VectorEnv | None]:
        """The environments that train, between their episodes, if they are to serve for everything; else None."""
        if not self._config.eval.in_training_env:
            yield None
            return
        self._collector.end_episodes()
        try:
            yield self._env
        except Exception:
            with contextlib.suppress(EnvError):  # it must not hide the first one
                self._collector.begin_episodes()
            raise
        self._collector.begin_episodes()

    def _make_films_if_due(self) -> None:
        now = self._collector.env_steps
        if now - self._counters.filmed_at >= self._config.log.video_every:
            self._counters.filmed_at = now
            self._make_films()
            self._reporter.enter("training")

    def _make_films(self) -> None:
        """A film is an extra: whatever goes wrong with it is told, each reason once, and the run goes on."""
        if self._film is None:
            return
        self._reporter.enter("filming")
        agent = LoadedAgent(
            self._folder.path, self._config, self._agent, self.learner.state, self._collector.env_steps, ()
        )
        try:
            with self._lent_env() as lent:
                films = self._film(agent, lent)
            for film in films.made:
                self._reporter.filmed(film)
            missing = films.missing
        except Exception as error:
            missing = [sentence_of(error)]
        for why in missing:
            self._reporter.note_once(f"no film: {reason_of(why)}", f"No film: {why}")
        give_back_memory()

    def _check_interrupt(self) -> None:
        if self._interrupt.requested:
            raise Stop("interrupted")

    def _tell_reporter(self) -> None:
        self._reporter.env_steps, self._reporter.updates = self._collector.env_steps, self._counters.updates

    def _save(self) -> None:
        begun = time.perf_counter()
        counters = dataclasses.asdict(self._counters)
        counters["compile_seconds"] += self.learner.compile_seconds
        replay_arrays, replay_meta = self._replay.state()
        collector_arrays, collector_meta, env_state = self._collector.state()
        snapshot = Snapshot(
            train_state=self.learner.state,
            arrays=checkpoint.prefixed(replay_arrays, "replay.") | checkpoint.prefixed(collector_arrays, "collector."),
            host={
                **as_host(self._config, self._lineage),
                "spaces": spaces_as_host(self._agent.spaces),
                "counters": counters,
                "surprise": self._surprise.state(),
                "replay": replay_meta,
                "collector": collector_meta,
                "reporter": self._reporter.state(),
            },
            opaque=env_state,
        )
        log = self._config.log
        checkpoint.save(self._folder.checkpoints, self._collector.env_steps, snapshot, keep=log.checkpoints_kept)
        self._saved = (self._collector.env_steps, self._counters.updates)
        self._saved_at = time.perf_counter()
        self._save_seconds = self._saved_at - begun
