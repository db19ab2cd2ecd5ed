"""The folder of one run: the paths of its files, atomic writes, and a lock for one process at a time.

    runs/cartpole-20260101-120000/
        config.yaml      the complete settings
        metrics.jsonl    one line for each report
        alerts.jsonl     one line for each failure that was detected
        tensorboard/     the same as metrics.jsonl, for TensorBoard
        checkpoints/     see checkpoint/
        replay/          images, with --replay.storage disk
        videos/          films of episodes and dreams
        summary.json     the result, written at the end
        report.html      all results on one page
        profile/         traces, with --profile
        .lock, .pid      of the process that trains here

`RunFolder(path)` only gives the file names; `RunFolder.open` takes the lock for writing.
"""

import contextlib
import datetime
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import yaml

MIN_FREE_BYTES = 50_000_000  # no run starts with less


class RunFolderError(RuntimeError):
    """A run folder cannot be used: one or two lines that name it and say what to do."""


def no_run_folder(folder: Path) -> RunFolderError:
    """The error for a folder that has no `config.yaml`, with the folder that was probably meant."""
    if not folder.exists():
        return RunFolderError(f"There is no folder {folder}.\nGive the folder of a run.")
    above = next((parent for parent in folder.parents if RunFolder(parent).config_path.is_file()), None)
    meant = f" Did you mean {above}?" if above else ""
    return RunFolderError(f"{folder} is no run folder: it has no config.yaml.{meant}\nGive the folder of a run.")


def default_run_folder(env_name: str, root: Path = Path("runs")) -> Path:
    """A free name: `runs/<env>-<date>-<time>`, with a number appended if that is taken.

    Args:
        env_name: as the user gave it, such as `cartpole` or `gym:Acrobot-v1`.
        root: the folder of runs. Nothing is made.

    Returns:
        The path.

    Raises:
        OSError: `root` cannot be read.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", env_name).strip("-.") or "run"
    path = root / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def read_config(path: Path) -> dict[str, Any] | None:
    """Reads the settings of a run folder; nothing is touched.

    Args:
        path: the run folder; it need not exist.

    Returns:
        The content of its config.yaml, or None if it has none.

    Raises:
        RunFolderError: the file cannot be read or does not parse; the message names the line.
    """
    file = RunFolder(path).config_path
    what_to_do = "Correct it, or choose another folder with --run-dir."
    try:
        config = yaml.safe_load(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunFolderError(f"{file} cannot be read: {error.strerror}.\n{what_to_do}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RunFolderError(f"{file}{line} is not YAML: {error.problem or error.context}.\n{what_to_do}") from error
    except yaml.YAMLError as error:
        raise RunFolderError(f"{file} is not YAML: {str(error).splitlines()[0]}.\n{what_to_do}") from error
    if not isinstance(config, dict):
        raise RunFolderError(f"{file} holds no settings, expected lines of `key: value`.\n{what_to_do}")
    return config


def changed_keys(stored: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compares two flat configurations, as `config.flatten` returns them.

    Args:
        stored: those of a run folder, where YAML and JSON have lists for tuples.
        current: those of now.

    Returns:
        Key -> (there, here) for each that differs; "missing" where there is none.
    """

    def value(config: Mapping[str, Any], key: str) -> Any:
        found = config.get(key, "missing")
        return list(found) if isinstance(found, tuple) else found

    pairs = {key: (value(stored, key), value(current, key)) for key in dict.fromkeys([*current, *stored])}
    return {key: (there, here) for key, (there, here) in pairs.items() if there != here}


def different_keys(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """As `changed_keys`, in words, one line for each key: `agent.model.deter: 512 there, 256 here`."""
    return [f"{key}: {there} there, {here} here" for key, (there, here) in changed_keys(stored, current).items()]


class RunFolder:
    """The files of a run folder; after `open`, this process holds its lock until `close`."""

    def __init__(self, path: Path) -> None:
        """Names the files; nothing is touched, and the folder need not exist."""
        self.path = path
        self._lock = filelock.FileLock(self.lock_path, thread_local=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Makes the folder if it is missing, and takes its lock.

        The operating system releases the lock when the process exits.

        Args:
            path: the run folder.

        Returns:
            The run folder, to be used in a `with` statement.

        Raises:
            RunFolderError: another live process holds it, it is no folder, no permission, or no space.
        """
        elsewhere = "choose another folder with --run-dir"
        try:
            _check_space(path)
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path)
            folder._lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise RunFolderError(
                f"{path} is in use: {_holder(path)} is training in it.\nWait for its end, or {elsewhere}."
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise RunFolderError(f"{path} is not a folder, or lies in a file: {elsewhere}.") from error
        except PermissionError as error:
            raise RunFolderError(f"No permission to write to {path}: change it, or {elsewhere}.") from error
        except OSError as error:
            raise RunFolderError(f"{path} cannot be made or used ({error.strerror or error}): {elsewhere}.") from error
        try:
            folder._write(folder.pid_path, f"{os.getpid()}\n")
        except BaseException:
            folder._lock.release()
            raise
        return folder

    def close(self) -> None:
        """Releases the folder, if this process holds it."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # the disk may have become read-only
                self.pid_path.unlink()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def lock_path(self) -> Path:
        """The lock file."""
        return self.path / ".lock"

    @property
    def pid_path(self) -> Path:
        """The process that trains here."""
        return self.path / ".pid"

    @property
    def config_path(self) -> Path:
        """The complete settings, YAML."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def alerts_path(self) -> Path:
        """The alerts, one JSON object a line."""
        return self.path / "alerts.jsonl"

    @property
    def summary_path(self) -> Path:
        """The result, JSON."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """The folder that `checkpoint.save` and `checkpoint.restore` take."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def replay(self) -> Path:
        """The folder of the replay's images, with `replay.storage disk`."""
        return self.path / "replay"

    @property
    def profile(self) -> Path:
        """The folder of the profiler's traces."""
        return self.path / "profile"

    @property
    def videos(self) -> Path:
        """The folder of films."""
        return self.path / "videos"

    @property
    def report_path(self) -> Path:
        """The report, HTML."""
        return self.path / "report.html"

    def read_config(self) -> dict[str, Any] | None:
        """Reads config.yaml; None if there is none.

        Raises:
            RunFolderError: it cannot be read or does not parse; the message names the line.
        """
        return read_config(self.path)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes config.yaml, whole or not at all.

        Args:
            config: nested mappings of plain values.

        Raises:
            RunFolderError: no space or no permission.
            yaml.YAMLError: a value is not plain (a number, a text, a list, ...).
        """
        self._write(self.config_path, yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, whole or not at all; NaN and infinities, which JSON lacks, become null.

        Args:
            summary: nested mappings of plain values.

        Raises:
            RunFolderError: no space or no permission.
            TypeError: a value is not plain (a number, a text, a list, ...).
        """
        self._write(self.summary_path, json.dumps(_finite(_plain(summary)), indent=2, allow_nan=False) + "\n")

    def _write(self, file: Path, text: str) -> None:
        temporary = file.with_name(f".tmp-{file.name}-{os.getpid()}")
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise RunFolderError(
                f"{file} could not be written: {error.strerror or error}.\nFree space, or correct the permissions."
            ) from error


def _check_space(path: Path) -> None:
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    disk = shutil.disk_usage(existing)
    if disk.total and disk.free < MIN_FREE_BYTES:  # some network disks report neither
        raise RunFolderError(
            f"No space for a run in {path}: {disk.free / 1e6:.0f} MB free, expected {MIN_FREE_BYTES / 1e6:.0f} MB.\n"
            "Free some, or choose a folder on another disk with --run-dir."
        )


def _holder(path: Path) -> str:
    try:
        return f"process {int(RunFolder(path).pid_path.read_text(encoding='utf-8'))}"
    except (OSError, ValueError):
        return "another process"


def _plain(value: Any) -> Any:
    """Replaces mappings and tuples by dicts and lists, for YAML and JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _finite(value: Any) -> Any:
    """None for every NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
