"""The folder of one run: what lies where, one process at a time, no file half written.

    runs/cartpole-20260101-120000/
        config.yaml      the complete settings
        metrics.jsonl    one line for each report
        alerts.jsonl     one line for each failure that was seen: see watch.py
        tensorboard/     the same for TensorBoard
        checkpoints/     see checkpoint.py
        summary.json     the result, at the end
        profile/         traces, with --profile: see profiler.py
        .lock, .pid      held by the process that trains here

To look into a folder without touching it, use `read_config`; to write in it, `RunFolder.open`.
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

MIN_FREE_BYTES = 50_000_000  # a run is not begun with less


class RunFolderError(RuntimeError):
    """A run folder cannot be used: one or two lines that name it and say what to do."""


def no_run_folder(folder: Path) -> RunFolderError:
    """The error for a folder that has no `config.yaml`, with the folder that was probably meant."""
    if not folder.exists():
        return RunFolderError(f"There is no folder {folder}.\nGive the folder of a run.")
    above = next((parent for parent in folder.parents if (parent / "config.yaml").is_file()), None)
    meant = f" Did you mean {above}?" if above else ""
    return RunFolderError(f"{folder} is no run folder: it has no config.yaml.{meant}\nGive the folder of a run.")


def default_run_folder(env_name: str, root: Path = Path("runs")) -> Path:
    """A name that is free: `runs/<env>-<date>-<time>`, with a number behind it if that is taken.

    Args:
        env_name: as the user gave it, such as `cartpole` or `gym:Acrobot-v1`.
        root: where runs lie. Nothing is made.

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
    """Reads the settings that a run folder was made with, and touches nothing.

    Args:
        path: the run folder; it need not exist.

    Returns:
        The content of its config.yaml, or None if it has none.

    Raises:
        RunFolderError: the file cannot be read or does not parse; the message names the line.
    """
    file = path / "config.yaml"
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
    """Compares two flat configurations, such as `config.flatten` makes.

    Args:
        stored: those of a run folder; YAML and JSON have made lists of its tuples.
        current: those asked for now.

    Returns:
        Key -> (there, here) for each that differs; "missing" where there is none.
    """

    def value(config: Mapping[str, Any], key: str) -> Any:
        found = config.get(key, "missing")
        return list(found) if isinstance(found, tuple) else found

    pairs = {key: (value(stored, key), value(current, key)) for key in dict.fromkeys([*current, *stored])}
    return {key: (there, here) for key, (there, here) in pairs.items() if there != here}


def different_keys(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The same in words, one line for each key: `agent.model.deter: 512 there, 256 here`."""
    return [f"{key}: {there} there, {here} here" for key, (there, here) in changed_keys(stored, current).items()]


class RunFolder:
    """A run folder that this process holds, from `open` until the end of the `with` block."""

    def __init__(self, path: Path, lock: filelock.BaseFileLock) -> None:
        """Use `RunFolder.open`."""
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Makes the folder if it is missing, and takes its lock.

        The lock is the system's own: it falls with the process that holds it, however that ends.

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
            lock = filelock.FileLock(path / ".lock", thread_local=False)
            lock.acquire(blocking=False)
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
        folder = cls(path, lock)
        try:
            folder._write(path / ".pid", f"{os.getpid()}\n")
        except BaseException:
            lock.release()
            raise
        return folder

    def close(self) -> None:
        """Gives the folder back; more than once does no harm."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # a disk that cannot be written any more
                (self.path / ".pid").unlink()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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
    if disk.total and disk.free < MIN_FREE_BYTES:  # some network disks tell neither
        raise RunFolderError(
            f"No space for a run in {path}: {disk.free / 1e6:.0f} MB free, expected {MIN_FREE_BYTES / 1e6:.0f} MB.\n"
            "Free some, or choose a folder on another disk with --run-dir."
        )


def _holder(path: Path) -> str:
    try:
        return f"process {int((path / '.pid').read_text(encoding='utf-8'))}"
    except (OSError, ValueError):
        return "another process"


def _plain(value: Any) -> Any:
    """Dicts and lists for the mappings and tuples that YAML and JSON do not know."""
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
