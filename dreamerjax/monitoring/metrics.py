"""Metrics on disk: one JSON object per line in `metrics.jsonl`, and the same numbers for TensorBoard.

A line is `{"step": 4000, "update": 500, "wall_seconds": 61.2, "episode/return": 212.0, ...}`. It is written and
flushed at once, so `tail -f` follows a run. The report and the comparisons read this file. TensorBoard's event files
have the same numbers and may lag by a few seconds; if they cannot be written, only `metrics.jsonl` continues.
"""

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from tensorboardX.proto.event_pb2 import Event as EventProto  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter

RESERVED = ("step", "update", "wall_seconds")  # the first keys of each line; not allowed as names of scalars


class MetricsWriter:
    """Writes named scalars, one line for each call, and can continue from a checkpoint."""

    def __init__(
        self,
        jsonl_path: Path,
        tensorboard_dir: Path | None,
        *,
        keep_bytes: int | None = None,
        purge_step: int | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Opens the file for appending and removes lines after the checkpoint, if a run was killed.

        Args:
            jsonl_path: the metrics file; it and its folder are made if missing.
            tensorboard_dir: folder for the event files, or None for no TensorBoard.
            keep_bytes: size to which an existing file is cut, from `position` when a checkpoint was saved; 0 starts
                over, None keeps all. An incomplete last line is always removed.
            purge_step: environment steps of that checkpoint: TensorBoard hides values of earlier event files from this
                step on.
            say: called once with a message if the event files cannot be written.

        Raises:
            OSError: the metrics file or its folder cannot be made.
        """
        self.path = Path(jsonl_path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        _cut(self.path, keep_bytes)
        # Unbuffered: after a failed write, closing the file must not write the rest.
        self._file = self.path.open("ab", buffering=0)
        self._say, self._events = say, None
        if tensorboard_dir is not None:
            with self._optional():
                self._events = _EventFile(Path(tensorboard_dir), purge_step)

    def write(self, step: int, update: int, wall_seconds: float, scalars: Mapping[str, Any]) -> None:
        """Writes one line, in the order given, and hands it to the operating system before it returns.

        JSON has no NaN and no infinity: such scalars are written as `null` (TensorBoard gets the value).

        Args:
            step: environment steps so far.
            update: updates so far.
            wall_seconds: wall-clock time of the run in seconds, rounded to milliseconds.
            scalars: name -> Python, numpy or JAX number. Waits for device arrays and copies them.

        Raises:
            ValueError: a name is reserved or a value is not a scalar.
            OSError: the line cannot be written, for example because the disk is full; the file is unchanged.
        """
        values = {name: _scalar(name, value) for name, value in scalars.items()}
        line: dict[str, int | float | None] = {
            "step": int(step),
            "update": int(update),
            "wall_seconds": round(float(wall_seconds), 3),
        }
        line |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._append(json.dumps(line, allow_nan=False).encode() + b"\n")
        with self._optional():
            if self._events is not None:
                self._events.write(int(step), values)

    def write_gif(self, step: int, name: str, gif: bytes) -> None:
        """Adds an animated GIF to TensorBoard; the metrics file has only numbers."""
        with self._optional():
            if self._events is not None and gif:
                self._events.write_gif(int(step), name, gif)

    def position(self) -> int:
        """Size of the metrics file in bytes, to store in a checkpoint for `keep_bytes`."""
        return self._file.tell()

    def close(self) -> None:
        """Closes both files; a second call does nothing."""
        try:
            self._file.close()
        finally:
            with self._optional():
                if self._events is not None:
                    self._events.close()

    def _append(self, line: bytes) -> None:
        start, rest = self._file.tell(), memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(start)
                self._file.seek(start)
            raise

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """Stops writing TensorBoard files after an error, and reports it; the metrics continue."""
        try:
            yield
        except OSError as error:
            events, self._events = self._events, None
            if events is not None:
                with contextlib.suppress(OSError):
                    events.close()
            self._say(f"TensorBoard files cannot be written and are stopped: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics file, also while a run writes it or after a run was killed.

    Args:
        path: the metrics file.

    Returns:
        One dictionary for each line, keys in file order. `null` becomes NaN, so that all scalars are numbers. An
        incomplete last line is ignored.

    Raises:
        OSError: the file cannot be read.
        ValueError: a complete line is not a JSON object.
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
        raise ValueError(f"A scalar cannot be named {name!r}: {', '.join(RESERVED)} are reserved.")
    if np.shape(value) != ():
        raise ValueError(f"{name} has shape {np.shape(value)}, expected a scalar: reduce it first.")
    return float(value)


def _cut(path: Path, keep_bytes: int | None) -> None:
    """Cuts the file to at most `keep_bytes`, at the end of a line."""
    with path.open("r+b") as file:
        content = file.read() if keep_bytes is None else file.read(keep_bytes)
        file.truncate(content.rfind(b"\n") + 1)


class _EventFile:
    """One TensorBoard event file, written without threads; each record has all scalars of a line."""

    FLUSH_SECONDS = 5.0  # least time between flushes, which wait for the disk

    def __init__(self, folder: Path, purge_step: int | None):
        folder.mkdir(parents=True, exist_ok=True)
        earlier = len(list(folder.glob("events.out.tfevents.*")))  # makes the name unique within a second
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{earlier}"
        self._writer = RecordWriter(str(folder / name))
        try:
            self._add(file_version="brain.Event:2")
            if purge_step is not None:
                self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))
            self._flush()
        except OSError:
            with contextlib.suppress(OSError):
                self.close()
            raise

    def write(self, step: int, values: Mapping[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._add(step=step, summary=summary)
        if time.monotonic() > self._flush_at:
            self._flush()

    def write_gif(self, step: int, name: str, gif: bytes) -> None:
        width, height = (int.from_bytes(gif[start : start + 2], "little") for start in (6, 8))  # from the GIF header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self._add(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def close(self) -> None:
        self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.write(EventProto(wall_time=time.time(), **content).SerializeToString())

    def _flush(self) -> None:
        self._writer.flush()
        self._flush_at = time.monotonic() + self.FLUSH_SECONDS
