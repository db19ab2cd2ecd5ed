"""The start of a run: new, from its newest checkpoint, or with the weights of another run."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from dreamerjax.agent.agent import init_knobs
from dreamerjax.config import Config, family_key, flatten
from dreamerjax.replay.saving import regrouped
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import Restored, Snapshot
from dreamerjax.runs.lineage import Event, Lineage, changes, changes_told, lineage_of
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.training.parts import Parts
from dreamerjax.training.reporter import git_commit


class Resumed(NamedTuple):
    """What a checkpoint says of the run itself."""

    lineage: Lineage
    metrics_bytes: int  # length of metrics.jsonl


def first_lineage(folder: Path) -> Lineage:
    """The lineage of a run that starts at nothing."""
    return (Event("begun", str(folder), 0, None, {}, git_commit()),)


def resume(parts: Parts) -> Resumed:
    """Restores all parts from the newest good checkpoint of the run folder.

    Raises:
        CheckpointError: all are damaged, or they are of another model.
    """
    config, folder = parts.config, parts.folder
    snapshot, restored = checkpoint.restore(folder.checkpoints, parts.learner.shapes, family=family_key(config))
    host = snapshot.host
    parts.counters.load(host["counters"])
    if "surprise" in host:
        parts.surprise.load(host["surprise"])
    _restore_learner(parts, snapshot)
    rows = checkpoint.unprefixed(snapshot.arrays, "replay.")
    parts.replay.load(*regrouped(rows, host["replay"], config.env.num_envs))
    problem = parts.collector.load(
        checkpoint.unprefixed(snapshot.arrays, "collector."), host["collector"], snapshot.opaque
    )
    parts.reporter.load(host["reporter"])
    parts.report_counts()
    _note_what_is_resumed(parts, snapshot, restored, problem)
    return Resumed(_lineage(snapshot, restored, config, folder.path), host["reporter"]["metrics_bytes"])


def start_from(parts: Parts, source: LoadedAgent) -> Lineage:
    """Takes over what another run of the same family has learned; returns the lineage of this fork."""
    config = parts.config
    parts.learner.adopt(source.state, frozen=config.train.mode == "actor_critic")
    parts.reporter.note(f"Starts from {source.run_dir} at {source.env_steps:,} environment steps.")
    told = changes_told(flatten(source.config), config)
    parts.reporter.note(f"Its settings, but for {told}." if told else "Its settings, all of them.")
    changed = changes(flatten(source.config), config)
    fork = Event("forked", str(parts.folder.path), source.env_steps, str(source.run_dir), changed, git_commit())
    return (*source.lineage, fork)


def _restore_learner(parts: Parts, snapshot: Snapshot) -> None:
    """Restores the train state, but for its knobs: these are settings, which may have changed."""
    config, stored = parts.config, snapshot.train_state
    knobs = init_knobs(config.agent)
    if config.train.mode == "actor_critic":  # the frozen head keeps the discount that it has learned
        knobs = dataclasses.replace(knobs, cont_discount=stored.knobs.cont_discount)
    parts.learner.restore(dataclasses.replace(stored, knobs=knobs))


def _lineage(snapshot: Snapshot, restored: Restored, config: Config, folder: Path) -> Lineage:
    lineage = lineage_of(snapshot.host)
    if changed := changes(snapshot.host.get("settings", flatten(config)), config):
        return (*lineage, Event("resumed", str(folder), restored.step, None, changed, git_commit()))
    return lineage


def _note_what_is_resumed(parts: Parts, snapshot: Snapshot, restored: Restored, problem: str) -> None:
    reporter = parts.reporter
    for sentence in restored.skipped:
        reporter.note(f"{sentence[:1].upper()}{sentence[1:]}.")
    reporter.note(
        f"Resumed at {restored.step:,} environment steps and {parts.counters.updates:,} updates"
        + (f"; new episodes begin: {problem}." if problem else ".")
    )
    if told := changes_told(snapshot.host.get("settings", {}), parts.config):
        reporter.note(f"Settings that have changed since: {told}.")
