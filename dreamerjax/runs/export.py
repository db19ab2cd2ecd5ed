"""A trained agent to share: the weights of a run's checkpoints, its settings and its metrics."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import Snapshot
from dreamerjax.runs.lineage import as_host
from dreamerjax.runs.load import load_run, spaces_as_host
from dreamerjax.runs.run_folder import RunFolder, RunFolderError
from dreamerjax.types import TrainState


def export(run_dir: Path, out: Path, *, steps: Sequence[int | None] = (None,)) -> list[Path]:
    """Writes a run folder without optimizer state and replay: it can be loaded, forked and shown, but not resumed.

    Args:
        run_dir: the run.
        out: the folder to make.
        steps: environment steps of the checkpoints to take; None: the newest good one.

    Returns:
        The folders of the checkpoints that were written.

    Raises:
        RunFolderError: `run_dir` is no run folder, or `out` exists.
        CheckpointError: there is no such checkpoint, or it cannot be read or written.
    """
    if out.exists():
        raise RunFolderError(f"{out} exists, expected a folder that does not.\nChoose another one, or remove it.")
    agents = [load_run(run_dir, step=step) for step in steps]
    source, target, written = RunFolder(run_dir), RunFolder(out), []
    for loaded in sorted(agents, key=lambda loaded: loaded.env_steps):
        host = as_host(loaded.config, loaded.lineage) | {"spaces": spaces_as_host(loaded.agent.spaces)}
        snapshot = Snapshot(_halved(jax.device_get(loaded.state)), arrays={}, host=host)
        written.append(checkpoint.save(target.checkpoints, loaded.env_steps, snapshot, keep=len(agents)))
    for file in (source.config_path, source.metrics_path, source.alerts_path, source.summary_path):
        if file.exists():
            shutil.copyfile(file, out / file.name)
    if target.summary_path.exists():  # the original path is private
        content = json.loads(target.summary_path.read_text(encoding="utf-8")) | {"run_dir": str(out)}
        target.summary_path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return written


def refuse_export(run_dir: Path) -> None:
    """Makes sure that the newest checkpoint of a run folder can be resumed; nothing is touched.

    Raises:
        RunFolderError: it holds weights only, as `export` writes them.
        CheckpointError: all checkpoints are damaged.
    """
    folder = RunFolder(run_dir).checkpoints
    if not checkpoint.has_checkpoint(folder):
        return
    host, restored = checkpoint.read_host(folder)
    if "counters" not in host:  # which every checkpoint of a run has
        raise RunFolderError(
            f"{run_dir} cannot be resumed: its checkpoint {restored.step} holds weights only, as an export does.\n"
            f"Begin a run with them: --init-from {run_dir}, and another --run-dir or none."
        )


def _halved(state: TrainState) -> TrainState:
    """Matrices in half precision: most of the weights, at half the size, with a relative error of 1/2000."""
    return jax.tree.map(lambda x: x.astype(np.float16) if x.ndim > 1 and x.dtype == np.float32 else x, state)
