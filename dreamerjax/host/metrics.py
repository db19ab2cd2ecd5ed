"""Metrics on disk: one JSON object a line in `metrics.jsonl`, and the same numbers for TensorBoard.

A line is `{"step": 4000, "update": 500, "wall_seconds": 61.2, "episode/return": 212.0, ...}`. It is written and
flushed at once, so `tail -f` follows a run, and it is the record that everything else reads (the report, the
comparisons). TensorBoard's event files are a second view of it and may lag by a few seconds.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

RESERVED = ("step", "update", "wall_seconds")  # they open each line; a scalar cannot take their name


class MetricsWriter:
    """Writes named scalars, one line for each call, and can go on where a checkpoint was taken."""

    def __init__(
        self,
        jsonl_path: Path,
        tensorboard_dir: Path | None,
        *,
        keep_bytes: int | None = None,
        purge_step: int | None = None,
    ):
        """Opens the file for appending and removes what a killed run may have left behind.

        Args:
            jsonl_path: the metrics file; it and its folder are made if missing.
            tensorboard_dir: folder for the event files, or None for no TensorBoard.
            keep_bytes: keep this much of an existing file, as `position` gave it when a checkpoint was taken; 0 starts
                over, None keeps all. In every case a half line at the end is removed.
            purge_step: environment steps of that checkpoint: TensorBoard hides what earlier event files hold from this
                step on.

        Raises:
            OSError: the file or the folder cannot be made.
        """
        self.path = Path(jsonl_path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        _cut(self.path, keep_bytes)
        self._events = None if tensorboard_dir is None else _EventFile(Path(tensorboard_dir), purge_step)
        self._file = self.path.open("ab")

    def write(self, step: int, update: int, wall_seconds: float, scalars: Mapping[str, Any]) -> None:
        """Writes one line, in the order given, and hands it to the operating system before it returns.

        JSON has no NaN and no infinity: such a scalar is written as `null` (TensorBoard gets it as it is).

        Args:
            step: environment steps so far.
            update: updates so far.
            wall_seconds: seconds that the run has taken, written to the millisecond.
            scalars: name -> Python, numpy or JAX number. A device array is waited for and copied.

        Raises:
            ValueError: a name is taken or a value is not a scalar.
            OSError: the line cannot be written, for example because the disk is full.
        """
        values = {name: _scalar(name, value) for name, value in scalars.items()}
        line: dict[str, int | float | None] = {
            "step": int(step),
            "update": int(update),
            "wall_seconds": round(float(wall_seconds), 3),
        }
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(int(step), values)

    def write_gif(self, step: int, name: str, gif: bytes) -> None:
        """Shows an animated GIF in TensorBoard; the metrics file takes none."""
        if self._events is not None and gif:
            self._events.write_gif(int(step), name, gif)

    def position(self) -> int:
        """Size of the metrics file in bytes: what a checkpoint records, for `keep_bytes`."""
        return self._file.tell()

    def close(self) -> None:
        """Closes both files; a second call does nothing."""
        try:
            self._file.close()
        finally:
            if self._events is not None:
                self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics file, also while a run writes it and after one was killed.

    Args:
        path: the metrics file.

    Returns:
        One dictionary for each line, keys in file order. `null` comes back as NaN, so that every scalar is a number.
        A half line at the end is left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: a whole line is not a JSON object.
    """
    rows = []
    lines = Path(path).read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is not None:
            rows.append({name: math.nan if value is None else value for name, value in row.items()})
        elif number < len(lines) or line.endswith(b"\n"):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found {line[:60]!r}.")
    return rows


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _scalar(name: str, value: Any) -> float:
    if name in RESERVED:
        raise ValueError(f"A scalar cannot be named {name!r}: each line opens with {', '.join(RESERVED)}.")
    if np.shape(value) != ():
        raise ValueError(f"{name} has shape {np.shape(value)}, expected a scalar: reduce it first.")
    return float(value)


def _cut(path: Path, keep_bytes: int | None) -> None:
    """Shortens the file to at most `keep_bytes`, and further to the end of a line."""
    with path.open("r+b") as file:
        content = file.read() if keep_bytes is None else file.read(keep_bytes)
        file.truncate(content.rfind(b"\n") + 1)


class _EventFile:
    """One TensorBoard event file, written without threads: one record holds all scalars of a line."""

    FLUSH_SECONDS = 5.0  # a flush waits for the disk, so it is not done for each record

    def __init__(self, folder: Path, purge_step: int | None):
        folder.mkdir(parents=True, exist_ok=True)
        # The library names a file after the second it was opened in, and overwrites one of the same name.
        earlier = len(list(folder.glob("events.out.tfevents.*")))
        self._writer = EventsWriter(str(folder / "events"), f".{earlier}")
        self._closed = False
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=purge_step, wall_time=time.time(), session_log=start))
        self._flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))
        if time.monotonic() > self._flush_at:
            self._flush()

    def write_gif(self, step: int, name: str, gif: bytes) -> None:
        width, height = (int.from_bytes(gif[start : start + 2], "little") for start in (6, 8))  # of the format's header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._writer.close()

    def _flush(self) -> None:
        self._writer.flush()
        self._flush_at = time.monotonic() + self.FLUSH_SECONDS
