"""Checkpoints during training: when they are due, what they contain, and what is saved when the run ends early."""

import dataclasses
import time

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot
from dreamerjax.runs.lineage import Lineage, as_host
from dreamerjax.runs.load import spaces_as_host
from dreamerjax.training.parts import Parts

PAUSE_BETWEEN_SAVES = 20  # times as long as one of them takes, at least


class Saver:
    """Saves the parts of a run."""

    def __init__(self, parts: Parts, lineage: Lineage) -> None:
        """Saves nothing yet."""
        self._parts = parts
        self.lineage = lineage
        self._saved_at, self._save_seconds = time.perf_counter(), 0.0
        self._saved: tuple[int, int] | None = None  # environment steps and updates of the newest checkpoint

    def save_if_due(self) -> None:
        """Saves every `log.checkpoint_seconds`; a large replay, which takes a while, less often."""
        pause = PAUSE_BETWEEN_SAVES * self._save_seconds if self._save_seconds > 1 else 0
        if time.perf_counter() - self._saved_at >= max(self._parts.config.log.checkpoint_seconds, pause):
            self.save()

    def save(self) -> None:
        """Writes a checkpoint.

        Raises:
            CheckpointError: it cannot be written.
        """
        begun, parts = time.perf_counter(), self._parts
        replay_arrays, replay_meta = parts.replay.state()
        collector_arrays, collector_meta, env_state = parts.collector.state()
        snapshot = Snapshot(
            train_state=parts.learner.state,
            arrays=checkpoint.prefixed(replay_arrays, "replay.") | checkpoint.prefixed(collector_arrays, "collector."),
            host={
                **as_host(parts.config, self.lineage),
                "spaces": spaces_as_host(parts.agent.spaces),
                "counters": dataclasses.asdict(parts.counters) | {"compile_seconds": parts.compile_seconds},
                "surprise": parts.surprise.state(),
                "replay": replay_meta,
                "collector": collector_meta,
                "reporter": parts.reporter.state(),
            },
            opaque=env_state,
        )
        kept = parts.config.log.checkpoints_kept
        checkpoint.save(parts.folder.checkpoints, parts.env_steps, snapshot, keep=kept)
        self._saved = (parts.env_steps, parts.counters.updates)
        self._saved_at = time.perf_counter()
        self._save_seconds = self._saved_at - begun

    def rescue(self, error: BaseException) -> str:
        """Saves the run, if possible, after the error that ends it; returns a sentence about it for the user."""
        parts = self._parts
        if isinstance(error, CheckpointError):
            return self._newest_told()
        try:
            if self._saved != (parts.env_steps, parts.counters.updates):
                parts.reporter.enter("saving")
                self.save()
        except Exception as second:  # it must not hide the first one
            reason, _, _ = str(second).partition("\n")
            return f"{reason or type(second).__name__} {self._newest_told()}"
        return (
            f"Saved at {parts.env_steps:,} environment steps; the same command with --run-dir {parts.folder.path} "
            "goes on."
        )

    def exit_message(self) -> str:
        """What is saved and what is lost if the process ends now, without saving: a sentence."""
        steps, folder = self._parts.env_steps, self._parts.folder.path
        try:
            newest = self._newest()
        except OSError as error:
            return f"Ended at once, without saving; the checkpoints cannot be read: {error}."
        if newest is None:
            return f"Ended at once, without saving: the {steps:,} environment steps of this run are lost."
        saved = f"Ended at once: what was learned up to {newest:,} environment steps is saved in {folder}"
        lost = f"the {steps - newest:,} steps after that are lost" if steps > newest else "no step is lost"
        return f"{saved}, and {lost}; the same command with --run-dir {folder} goes on."

    def _newest(self) -> int | None:
        return max(checkpoint.steps(self._parts.folder.checkpoints), default=None)

    def _newest_told(self) -> str:
        try:
            newest = self._newest()
        except OSError as error:
            return f"The checkpoints cannot be read: {error}."
        return "There is no checkpoint yet." if newest is None else f"The newest checkpoint is at {newest:,} steps."
