"""Jobs on a Ray cluster: for sweeps that want more than one machine. All of them see the same folders and this code."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from dreamerjax.config import ConfigError
from dreamerjax.runtime.processes import own_environment
from dreamerjax.study.jobs import Job, in_words, run_job, summary_of, under_way

RETRIES = 5  # of a job whose worker is lost; it goes on from its newest checkpoint
POLL_SECONDS = 0.5
STARTS = 3  # of a cluster on this machine: Ray gives its processes 30 s to start, too few where all cores are busy


def run_jobs_on_ray(
    jobs: Sequence[Job],
    *,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda text: None,
    interrupted: Callable[[], bool] = lambda: False,
    enough: Callable[[Job], bool] = lambda job: False,
) -> bool:
    """Runs jobs on the cluster that `start_ray` has joined, one on each CPU; as `run_jobs` otherwise.

    A job whose worker is killed is given to another one, and goes on.

    Raises:
        Failed: a job ended with an error.
    """
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayTaskError, TaskCancelledError  # pyright: ignore[reportMissingImports]

    # Other machines have other working folders.
    waiting = [job._replace(pool=job.pool.resolve()) for job in dict.fromkeys(jobs) if summary_of(job) is None]
    task: Any = ray.remote(num_cpus=1, max_retries=RETRIES)(run_job)
    refs = {task.remote(job): job for job in waiting}
    stopped_early, ended = set[Job](), 0
    while refs:
        done, _ = ray.wait(list(refs), timeout=POLL_SECONDS)
        show(under_way(list(refs.values()), ended, len(waiting)))
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
            say(f"{ended} of {len(waiting)}: {in_words(summary)} ({job.folder.name})")
        if refs and interrupted():
            for ref in refs:
                ray.cancel(ref)
            ray.wait(list(refs), num_returns=len(refs))
            return False
        for ref, job in refs.items():
            if job not in stopped_early and enough(job):
                stopped_early.add(job)
                ray.cancel(ref)  # an interrupt, upon which it saves
    return True


def start_ray(address: str | None) -> None:
    """Joins a cluster, or starts one on this machine.

    Raises:
        ConfigError: Ray is not installed, cannot start, or there is no cluster at the address.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            'Ray is not installed, and --executor ray was asked for.\npip install "dreamerjax[ray]"'
        ) from error
    # Workers import this package from where it is here.
    environment = {"env_vars": {"PYTHONPATH": own_environment()["PYTHONPATH"]}}
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address=address, runtime_env=environment, include_dashboard=False, log_to_driver=False)
            return
        except ConnectionError as error:
            raise ConfigError(f"No Ray cluster answers at {address}: {error}") from error
        except Exception as error:  # Ray has no type of its own for a start that took too long
            ray.shutdown()
            if attempt == STARTS:
                raise ConfigError(
                    f"Ray did not start on this machine in {STARTS} attempts. The last one ended with "
                    f"{type(error).__name__}: {error}\nWithout --executor ray the jobs run in local processes."
                ) from error


def stop_ray() -> None:
    """Leaves the cluster; one that `start_ray` started ends, with every process of it."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.shutdown()
