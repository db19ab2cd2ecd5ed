"""Runs jobs on a Ray cluster, for sweeps on several machines. All machines must share the run folders and this code."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from dreamerjax.config import ConfigError
from dreamerjax.runtime.processes import own_environment
from dreamerjax.study.jobs import Job, job_outcome, progress_line, run_job, summary_of

RETRIES = 5  # of a job whose worker is lost; a retry resumes from the newest checkpoint
POLL_SECONDS = 0.5
STARTS = 3  # attempts to start a local cluster: Ray allows its processes 30 s, too little when all cores are busy


def run_jobs_on_ray(
    jobs: Sequence[Job],
    *,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
    stop_early: Callable[[Job], bool] = lambda job: False,
) -> bool:
    """Runs jobs on the cluster that `start_ray` joined, one on each CPU; otherwise like `run_jobs`.

    If a worker is killed, another one resumes its job.

    Raises:
        JobFailedError: a job ended with an error.
    """
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayTaskError, TaskCancelledError  # pyright: ignore[reportMissingImports]

    # Absolute paths: other machines have other working directories.
    waiting = [job._replace(pool=job.pool.resolve()) for job in dict.fromkeys(jobs) if summary_of(job) is None]
    task: Any = ray.remote(num_cpus=1, max_retries=RETRIES)(run_job)
    refs = {task.remote(job): job for job in waiting}
    stopped_early, ended = set[Job](), 0
    while refs:
        done, _ = ray.wait(list(refs), timeout=POLL_SECONDS)
        show(progress_line(list(refs.values()), ended, len(waiting)))
        for ref in done:
            job = refs.pop(ref)
            try:
                summary = ray.get(ref)
            except TaskCancelledError:
                continue
            except RayTaskError as error:
                for other in refs:
                    ray.cancel(other)
                raise error.as_instanceof_cause() from error
            ended += 1
            say(f"{ended} of {len(waiting)}: {job_outcome(summary)} ({job.folder.name})")
        if refs and interrupted():
            for ref in refs:
                ray.cancel(ref)
            ray.wait(list(refs), num_returns=len(refs))
            return False
        for ref, job in refs.items():
            if job not in stopped_early and stop_early(job):
                stopped_early.add(job)
                ray.cancel(ref)  # raises KeyboardInterrupt in the worker, which saves the run
    return True


def start_ray(address: str | None) -> None:
    """Joins a cluster, or starts one on this machine.

    Raises:
        ConfigError: Ray is not installed or cannot start, or no cluster answers at the address.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            '--executor ray was given, but Ray is not installed. Install it with:\npip install "dreamerjax[ray]"'
        ) from error
    # Workers import this package from the same path.
    environment = {"env_vars": {"PYTHONPATH": own_environment()["PYTHONPATH"]}}
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address=address, runtime_env=environment, include_dashboard=False, log_to_driver=False)
            return
        except ConnectionError as error:
            raise ConfigError(f"No Ray cluster answers at {address}: {error}") from error
        except Exception as error:  # Ray raises no specific type when its start times out
            ray.shutdown()
            if attempt == STARTS:
                raise ConfigError(
                    f"Ray did not start on this machine in {STARTS} attempts. The last one ended with "
                    f"{type(error).__name__}: {error}\nOmit --executor ray to run the jobs in local processes."
                ) from error


def stop_ray() -> None:
    """Leaves the cluster; stops it with all its processes if `start_ray` started it."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.shutdown()
