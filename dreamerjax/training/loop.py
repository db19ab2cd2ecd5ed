"""The phases of a run: random prefill, world-model warm-up (optional), training, the end.

Training is one thread that waits for the device only if necessary. A dispatch of U updates returns at once. Then:

- interleaved (on a CPU, which has no spare cores): the next environment steps wait for the new parameters;
- overlapped (on an accelerator): a policy on the host's CPU makes the next steps during the dispatch, with parameters
  that lag by exactly one dispatch. The next batches are drawn and moved to the device. The result does not depend on
  relative speed: the same seed gives the same run.
"""

import time
from typing import Any, Literal

import jax

from dreamerjax.agent.train_step import Mode
from dreamerjax.config import Config
from dreamerjax.monitoring.terminal import Display
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.background import Background
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.memory import memory_sentence
from dreamerjax.training.filming import Film, Filming
from dreamerjax.training.judge import Judge
from dreamerjax.training.learner import Learner
from dreamerjax.training.pacing import next_modes
from dreamerjax.training.parts import make_parts
from dreamerjax.training.resume import first_lineage, resume, start_from
from dreamerjax.training.saving import Saver

POLL_SECONDS = 0.05  # how often a wait looks for Ctrl-C
LARGE_REPLAY = 100e6  # bytes; the memory of a smaller one is not mentioned

Stop = Literal["solved", "budget", "interrupted"]  # why training ends


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
        film: Film | None = None,
    ) -> None:
        """Makes environments, replay and agent; nothing runs yet.

        Args:
            config: resolved.
            folder: locked by this process.
            backend: already selected.
            display: entered.
            interrupt: entered.
            profile: whether traces of the profiler are written into the run folder.
            film: makes films of an agent, in the given environments or (None) in new ones; called every
                `log.video_every` environment steps and at the end.

        Raises:
            EnvError: the environment does not exist or is not supported.
            ConfigError: the replay does not fit into memory or onto the disk.
        """
        self._backend, self._interrupt = backend, interrupt
        self._parts = parts = make_parts(config, folder, display, profile=profile)
        self._judge, self._filming = Judge(parts, interrupt), Filming(parts, film)
        self._saver = Saver(parts, first_lineage(folder.path))
        self._metrics_bytes = 0  # length of metrics.jsonl that belongs to this run

    @property
    def learner(self) -> Learner:
        """The learner, with the train state."""
        return self._parts.learner

    def resume(self) -> None:
        """Restores the newest good checkpoint of the run folder.

        Raises:
            CheckpointError: all are damaged, or they are of another model.
        """
        self._saver.lineage, self._metrics_bytes = resume(self._parts)

    def start_from(self, source: LoadedAgent) -> None:
        """Starts with what another run of the same family has learned: a fork."""
        self._saver.lineage = start_from(self._parts, source)

    def run(self) -> dict[str, Any]:
        """Trains until the task is solved, the budget is spent or the user stops it.

        Returns:
            The summary, which is also written to the run folder.

        Raises:
            EnvError: the environment misbehaves.
            CheckpointError: a checkpoint cannot be written.
            RunFolderError: metrics or summary cannot be written.
            Exception: any other error; a note in it says whether the run was saved.
        """
        try:
            self._parts.reporter.open(keep_bytes=self._metrics_bytes)
            try:
                self._note_replay()
                return self._finish(self._run_phases())
            except BaseException as error:  # of any kind: what was learned is saved
                error.add_note(self._saver.rescue(error))
                raise
        finally:
            self._parts.close()

    def exit_message(self) -> str:
        """What is saved and what is lost if the process ends now, without saving: a sentence."""
        return self._saver.exit_message()

    def _note_replay(self) -> None:
        parts = self._parts
        for line in parts.env.descriptions:
            parts.reporter.note(line)
        if parts.replay.bytes_at_capacity >= LARGE_REPLAY:
            parts.reporter.note(memory_sentence(parts.replay.bytes_at_capacity, parts.config.replay.capacity))

    # Phases. Each returns why training ends, or None if the next phase follows.

    def _run_phases(self) -> Stop:
        policy = self._compile()
        return self._prefill() or self._wait_for_compilation(policy) or self._warm_up() or self._train()

    def _compile(self) -> Background:
        """Starts to compile the updates and, in a second thread, the policy; the prefill runs meanwhile."""
        parts, train = self._parts, self._parts.config.train
        shapes = parts.replay.batch_shapes(train.batch_size, train.sequence_length, train.updates_per_dispatch)
        alone = self._warms_up or (train.mode == "joint" and train.pacing != "fixed")
        parts.learner.compile(("world_model", "joint") if alone else (train.mode,), shapes)
        return Background(self._compile_policy)

    def _compile_policy(self) -> None:
        """Makes the first parameters and compiles the policy."""
        self._parts.collector.compile_policy(self._parts.learner.policy_params)

    def _prefill(self) -> Stop | None:
        parts, train = self._parts, self._parts.config.train
        parts.collector.store_first_rows()
        while parts.env_steps < train.prefill or not parts.replay.can_sample(train.sequence_length):
            self._collect(random=True)
            parts.reporter.show()
            if self._interrupt.requested:
                return "interrupted"
        return None

    def _wait_for_compilation(self, policy: Background) -> Stop | None:
        while self._parts.learner.compiling or policy.running:
            self._parts.reporter.enter("compiling")
            if self._interrupt.requested:
                return "interrupted"
            time.sleep(POLL_SECONDS)
        return None

    @property
    def _warms_up(self) -> bool:
        """Whether the world model is still to be trained alone."""
        train = self._parts.config.train
        return train.mode == "joint" and self._parts.counters.warmup_updates < train.world_model_warmup

    def _warm_up(self) -> Stop | None:
        if self._warms_up:
            self._parts.reporter.enter("world-model warm-up")
        while self._warms_up:
            self._update("world_model")
            self._parts.counters.warmup_updates += self._parts.config.train.updates_per_dispatch
            self._after_step()
            if self._interrupt.requested:
                return "interrupted"
        return None

    def _train(self) -> Stop:
        parts, counters, train = self._parts, self._parts.counters, self._parts.config.train
        parts.reporter.enter("training")
        start = counters.train_start = counters.train_start or parts.env_steps
        if counters.solved_at and train.stop_when_solved:
            return "solved"
        if parts.config.eval.diagnose and parts.config.eval.every:  # every evaluation is followed by a diagnosis
            parts.diagnosis.compile(parts.learner.state)
        rows_per_update = train.batch_size * train.sequence_length
        while True:
            if stop := self._judge.evaluate_if_due():
                return stop
            self._filming.film_if_due()
            # The train ratio, exactly: a dispatch follows as soon as the environment steps have earned its rows.
            earned = train.ratio * (parts.env_steps - start)
            counted = counters.updates - counters.warmup_updates - counters.extra_updates
            if earned - rows_per_update * counted >= rows_per_update * train.updates_per_dispatch:
                self._make_updates(counted // train.updates_per_dispatch)
            elif parts.env_steps < train.env_steps:
                self._collect(random=False)
            else:
                return "budget"
            self._after_step()
            if self._interrupt.requested:
                return "interrupted"

    def _finish(self, stop: Stop) -> dict[str, Any]:
        """The last evaluation, the last checkpoint, the summary, the last films."""
        parts = self._parts
        if stop == "budget":
            stop = self._judge.evaluate_at_end() or stop
        if stop == "interrupted":
            parts.reporter.enter("saving")
        else:
            parts.reporter.log()
        self._saver.save()
        if stop == "solved":
            parts.reporter.enter("solved")
        summary = parts.reporter.summary(
            self._backend, stopped=stop, solved_at=parts.counters.solved_at, compile_seconds=parts.compile_seconds
        )
        parts.folder.write_summary(summary)
        if stop != "interrupted":
            self._filming.film()
        return summary

    # Steps of a phase

    def _collect(self, *, random: bool) -> None:
        """Makes one step of all environments."""
        parts = self._parts
        steps, rows = parts.env_steps, parts.replay.rows_added
        episodes = parts.collector.step(None if random else parts.learner.policy_params)
        parts.reporter.collected(steps=parts.env_steps - steps, rows=parts.replay.rows_added - rows)
        parts.report_counts()
        for episode in episodes:
            parts.reporter.episode_ended(episode)
        parts.reporter.heard(parts.collector.take_news())

    def _make_updates(self, dispatch: int) -> None:
        """One dispatch that counts for the train ratio, after those that its pacing adds."""
        train = self._parts.config.train
        *extra, mode = next_modes(train, dispatch, surprised=bool(self._parts.surprise))
        for more in extra:
            self._update(more)
            self._parts.counters.extra_updates += train.updates_per_dispatch
        self._update(mode)

    def _update(self, mode: Mode) -> None:
        """One dispatch of U updates."""
        parts, train = self._parts, self._parts.config.train
        with parts.reporter.waiting_for_data():
            batches = parts.replay.sample(train.batch_size, train.sequence_length, train.updates_per_dispatch)
            batches = jax.device_put(batches)
        updated = parts.learner.update(batches, mode)
        parts.replay.refresh(updated.latents)
        parts.profiler.dispatched(updated.metrics)
        parts.counters.updates += train.updates_per_dispatch
        parts.report_counts()
        parts.reporter.updated(updated.metrics)
        if train.pacing == "surprise":  # the other rules never wait for the device
            parts.surprise.updated(float(updated.metrics["kl"]))

    def _after_step(self) -> None:
        """Logs, shows and saves what is due."""
        self._parts.reporter.log_if_due()
        self._parts.reporter.show()
        self._saver.save_if_due()
