"""Runs that an experiment or a sweep is made of: each is known by what it is, and is made once.

A job's folder is named by its settings, so that experiments with the same baseline share its runs, a second start goes
on where the first was stopped, and nothing that has ended is done again.
"""

import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import yaml

from dreamerjax.config import Config, flatten
from dreamerjax.runs.lineage import IGNORED
from dreamerjax.runs.run_folder import RunFolder, RunFolderError
from dreamerjax.runs.settings import nested
from dreamerjax.runtime.interrupt import STOPPED
from dreamerjax.runtime.processes import own_command, own_environment

POOL = Path("runs") / "pool"
POLL_SECONDS = 0.2
SHOW_SECONDS = 2.0
STOP_SECONDS = 60.0  # for a run to save and stop


class Job(NamedTuple):
    """One run: settings (the seed among them), code and start."""

    config: Config  # resolved
    variant: str = ""  # `FILE.py:NAME`, see variant.py
    init_from: Path | None = None  # a run that it starts from
    pool: Path = POOL

    @property
    def folder(self) -> Path:
        """Its run folder; the same for the same job."""
        what = {key: value for key, value in flatten(self.config).items() if not key.startswith(IGNORED)}
        seed = what.pop("seed")
        source = str(self.init_from.resolve()) if self.init_from else ""
        # With the file's content: a variant that was edited is another one.
        code = [self.variant, Path(self.variant.rpartition(":")[0]).read_text()] if self.variant else ""
        text = json.dumps([what, code, source], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        name = self.config.env.name.replace(":", "-").replace("/", "-")
        return self.pool / f"{name}-{digest}-seed{seed}"


class Failed(RunFolderError):
    """A run ended with an error: its last words and where to read more."""


def summary_of(job: Job) -> dict[str, Any] | None:
    """The summary of a job that has ended; None while there is more to do."""
    try:
        summary = json.loads(RunFolder(job.folder).summary_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if summary["stopped"] in ("solved", "budget") else None


def run_job(job: Job, *, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
    """Runs a job to its end, from where it was.

    Args:
        job: what to run.
        stop: asked now and then; True saves and stops the run.

    Returns:
        Its summary, or None if it was stopped.

    Raises:
        Failed: the run ended with an error.
    """
    if (summary := summary_of(job)) is not None:
        return summary
    folder = job.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not _wait_until_free(folder, stop):
        return None
    if (summary := summary_of(job)) is not None:  # somebody else has just made it
        return summary
    settings = folder / "settings.yaml"
    settings.write_text(yaml.safe_dump(nested(job.config), sort_keys=False), encoding="utf-8")
    command = own_command("train", "--config", str(settings), "--run-dir", str(folder), ends_with_parent=True)
    command += ["--variant", job.variant] if job.variant else []
    command += ["--init-from", str(job.init_from)] if job.init_from else []
    with (folder / "output.txt").open("ab") as output:
        # A session of its own: Ctrl-C reaches it through us, who know what to save first.
        child = subprocess.Popen(
            command,
            env=own_environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            while child.poll() is None and not stop():
                time.sleep(POLL_SECONDS)
        finally:
            _end(child)
    summary = summary_of(job)
    # It dies of the signal itself where that comes before it listens.
    if summary is None and child.returncode not in (0, -signal.SIGTERM, *STOPPED):
        words = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise Failed(f"A run failed (exit code {child.returncode}): {' '.join(words)}\nMore is in {folder}/output.txt.")
    return summary


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
    enough: Callable[[Job], bool] = lambda job: False,
) -> bool:
    """Runs jobs on this machine, the unfinished ones alone.

    Args:
        jobs: in the order of their start.
        at_once: how many run side by side.
        say: told a line when one ends.
        show: told what is under way, every few seconds.
        interrupted: asked now and then; True saves and stops all of them.
        enough: asked of each now and then, in its own thread; True saves and stops it, and it counts as ended.

    Returns:
        Whether all have ended: False if they were interrupted.

    Raises:
        Failed: one ended with an error; the others were stopped and saved.
    """
    stop, stopped_early = threading.Event(), set[Job]()

    def until(job: Job) -> bool:
        if stop.is_set() or interrupted():
            return True
        if enough(job):
            stopped_early.add(job)
            return True
        return False

    waiting = [job for job in dict.fromkeys(jobs) if summary_of(job) is None]
    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(_run_unless, job, functools.partial(until, job)): job for job in waiting}
        try:
            ended, pending = 0, set(futures)
            while pending:
                done, pending = wait(pending, SHOW_SECONDS, FIRST_COMPLETED)
                ended += len(done)
                show(under_way([futures[future] for future in pending if future.running()], ended, len(waiting)))
                for future in done:
                    summary = future.result()
                    if summary is not None:
                        say(f"{ended} of {len(waiting)}: {in_words(summary)} ({futures[future].folder.name})")
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    return all(job in stopped_early or summary_of(job) is not None for job in jobs)


def _run_unless(job: Job, stop: Callable[[], bool]) -> dict[str, Any] | None:
    return None if stop() else run_job(job, stop=stop)


def _wait_until_free(folder: Path, stop: Callable[[], bool]) -> bool:
    """Waits while another process trains there: one whose parent was killed saves first. False if it was stopped."""
    while not stop():
        with contextlib.suppress(filelock.Timeout):
            filelock.FileLock(RunFolder(folder).lock_path).acquire(blocking=False).lock.release()
            return True
        time.sleep(POLL_SECONDS)
    return False


def _end(child: subprocess.Popen) -> None:
    """Closes the pipe, upon which the child saves and stops; kills it if it does not."""
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def under_way(jobs: Sequence[Job], ended: int, total: int) -> str:
    """How far runs are that have not ended: a line for people."""
    return f"{ended} of {total} runs have ended; now: {', '.join(map(_progress, jobs)) or 'none'}"


def _progress(job: Job) -> str:
    try:
        with RunFolder(job.folder).metrics_path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            step = json.loads(file.read().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        step = 0
    return f"{job.folder.name} at {step:,} of {job.config.train.env_steps:,} steps"


def in_words(summary: dict[str, Any]) -> str:
    """What a job came to, half a sentence."""
    last = summary["eval"]["return_mean"] if summary["eval"] else float("nan")
    return f"return {last:.1f} after {summary['env_steps']:,} steps, {summary['wall_seconds']:.0f} s"
