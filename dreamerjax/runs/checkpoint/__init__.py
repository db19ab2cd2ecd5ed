"""Checkpoints: all data that a run needs to continue, written atomically and checked before use.

checkpoints/0000004000/       one folder for each checkpoint, named by environment steps
    train_state/              the TrainState, by orbax
    arrays.npz                the replay's arrays, uncompressed
    host.json                 counters; the family, settings and lineage of the run
    opaque.pkl                the caller's bytes, if any
    MANIFEST.json             size and SHA-256 of every file above
"""

from dreamerjax.runs.checkpoint.snapshot import CheckpointError, Snapshot, prefixed, unprefixed
from dreamerjax.runs.checkpoint.store import (
    Restored,
    has_checkpoint,
    read_arrays,
    read_host,
    restore,
    restore_raw,
    save,
    steps,
)

__all__ = [
    "CheckpointError",
    "Restored",
    "Snapshot",
    "has_checkpoint",
    "prefixed",
    "read_arrays",
    "read_host",
    "restore",
    "restore_raw",
    "save",
    "steps",
    "unprefixed",
]
