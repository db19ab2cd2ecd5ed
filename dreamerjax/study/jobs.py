"""Jobs: the runs of experiments and sweeps, each identified by its settings and trained once.

The name of a job's folder is a hash of its settings. So experiments with the same baseline share its runs, unfinished
runs are resumed, and finished runs are reused.
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
STOP_SECONDS = 60.0  # time for a run to save and stop, before it is killed


class Job(NamedTuple):
    """One run: settings (including the seed), variant of the code, and parent run."""

    config: Config  # resolved
    variant: str = ""  # `FILE.py:NAME`, see variant.py
    init_from: Path | None = None  # the parent run
    pool: Path = POOL

    @property
    def folder(self) -> Path:
        """The run folder; equal jobs have the same one."""
        what = {key: value for key, value in flatten(self.config).items() if not key.startswith(IGNORED)}
        seed = what.pop("seed")
        source = str(self.init_from.resolve()) if self.init_from else ""
        # Includes the file's content, so that an edited variant is a different job.
        code = [self.variant, Path(self.variant.rpartition(":")[0]).read_text()] if self.variant else ""
        text = json.dumps([what, code, source], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        name = self.config.env.name.replace(":", "-").replace("/", "-")
        return self.pool / f"{name}-{digest}-seed{seed}"


class JobFailedError(RunFolderError):
    """A run ended with an error; the message has its last output and the path of the rest."""


def summary_of(job: Job) -> dict[str, Any] | None:
    """The summary of a finished job; None if it is unfinished."""
    try:
        summary = json.loads(RunFolder(job.folder).summary_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if summary["stopped"] in ("solved", "budget") else None


def run_job(job: Job, *, stop: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
    """Runs or resumes a job in a child process until it is finished.

    Args:
        job: what to run.
        stop: polled regularly; True saves and stops the run.

    Returns:
        The summary, or None if the run was stopped.

    Raises:
        JobFailedError: the run ended with an error.
    """
    if (summary := summary_of(job)) is not None:
        return summary
    folder = job.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not _wait_until_free(folder, stop):
        return None
    if (summary := summary_of(job)) is not None:  # another process has finished it
        return summary
    settings = folder / "settings.yaml"
    settings.write_text(yaml.safe_dump(nested(job.config), sort_keys=False), encoding="utf-8")
    command = own_command("train", "--config", str(settings), "--run-dir", str(folder), ends_with_parent=True)
    command += ["--variant", job.variant] if job.variant else []
    command += ["--init-from", str(job.init_from)] if job.init_from else []
    with (folder / "output.txt").open("ab") as output:
        # In a new session, so that Ctrl-C reaches only this process, which then stops the child.
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
    # A SIGTERM before the child has installed its handler kills it.
    if summary is None and child.returncode not in (0, -signal.SIGTERM, *STOPPED):
        last_lines = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        raise JobFailedError(
            f"A run failed (exit code {child.returncode}): {' '.join(last_lines)}\n"
            f"{folder}/output.txt has its whole output."
        )
    return summary


def run_jobs(
    jobs: Sequence[Job],
    *,
    at_once: int,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
    stop_early: Callable[[Job], bool] = lambda job: False,
) -> bool:
    """Runs the unfinished jobs on this machine.

    Args:
        jobs: in the order of their start.
        at_once: number of jobs that run in parallel.
        say: called with a line of text when a job finishes.
        show: called with the current status every few seconds.
        interrupted: polled regularly; True saves and stops all jobs.
        stop_early: polled for each job in its thread; True saves and stops the job, which then counts as finished.

    Returns:
        Whether all jobs are finished: False if they were interrupted.

    Raises:
        JobFailedError: a job ended with an error; the others were saved and stopped.
    """
    stop, stopped_early = threading.Event(), set[Job]()

    def until(job: Job) -> bool:
        if stop.is_set() or interrupted():
            return True
        if stop_early(job):
            stopped_early.add(job)
            return True
        return False

    waiting = [job for job in dict.fromkeys(jobs) if summary_of(job) is None]
    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(_run_unless_stopped, job, functools.partial(until, job)): job for job in waiting}
        try:
            ended, pending = 0, set(futures)
            while pending:
                done, pending = wait(pending, SHOW_SECONDS, FIRST_COMPLETED)
                ended += len(done)
                show(progress_line([futures[future] for future in pending if future.running()], ended, len(waiting)))
                for future in done:
                    summary = future.result()
                    if summary is not None:
                        say(f"{ended} of {len(waiting)}: {job_outcome(summary)} ({futures[future].folder.name})")
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    return all(job in stopped_early or summary_of(job) is not None for job in jobs)


def _run_unless_stopped(job: Job, stop: Callable[[], bool]) -> dict[str, Any] | None:
    return None if stop() else run_job(job, stop=stop)


def _wait_until_free(folder: Path, stop: Callable[[], bool]) -> bool:
    """Waits while another process trains in the folder, such as an orphaned run that saves. False if `stop` is True."""
    while not stop():
        with contextlib.suppress(filelock.Timeout):
            filelock.FileLock(RunFolder(folder).lock_path).acquire(blocking=False).lock.release()
            return True
        time.sleep(POLL_SECONDS)
    return False


def _end(child: subprocess.Popen) -> None:
    """Closes the pipe, which makes the child save and stop; kills the child after a timeout."""
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def progress_line(jobs: Sequence[Job], ended: int, total: int) -> str:
    """A status line: finished runs and the progress of the others."""
    return f"{ended} of {total} runs finished; running: {', '.join(map(_progress, jobs)) or 'none'}"


def _progress(job: Job) -> str:
    try:
        with RunFolder(job.folder).metrics_path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            step = json.loads(file.read().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        step = 0
    return f"{job.folder.name} at {step:,} of {job.config.train.env_steps:,} steps"


def job_outcome(summary: dict[str, Any]) -> str:
    """The outcome of a finished job, as part of a sentence."""
    last = summary["eval"]["return_mean"] if summary["eval"] else float("nan")
    return f"return {last:.1f} after {summary['env_steps']:,} steps, {summary['wall_seconds']:.0f} s"
