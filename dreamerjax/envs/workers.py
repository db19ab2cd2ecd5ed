"""Steps copies of an environment in worker processes; restarts processes that fail.

Each worker steps some of the copies with a `SerialVectorEnv`; see `worker_process.py`. A worker that raises, dies or
hangs is replaced, and its copies start new episodes; the other workers' rows are unaffected. Only repeated failures
stop the run.
"""

import contextlib
import time

import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, EnvEvent, StateError, VectorEnv, saving
from dreamerjax.envs.worker_process import END_SECONDS, SharedRows, Worker, WorkerError
from dreamerjax.types import Rows

START_SECONDS = 60.0  # least timeout for all commands except a step


class WorkerVectorEnv(VectorEnv):
    """The rows of a `SerialVectorEnv` with the same seed, stepped in `config.workers` processes in parallel.

    If a worker fails in a step, the rows of its copies start new episodes with new seeds, and an `EnvEvent` describes
    the failure.
    """

    def __init__(self, config: EnvConfig, *, num_envs: int, seed: int) -> None:
        """Starts the processes, at most one for each copy; see `make_env`.

        Raises:
            EnvError: the environment cannot be made.
            ConfigError: a setting does not fit the environment.
        """
        self.num_envs = num_envs
        self._config, self._seed, self._steps = config, seed, 0
        self._patience = max(START_SECONDS, config.worker_timeout)
        self._events: list[EnvEvent] = []
        self._shared: SharedRows | None = None
        shares = np.array_split(np.arange(num_envs), min(config.workers, num_envs))
        self._workers = [Worker(config, number, share.tolist(), num_envs) for number, share in enumerate(shares)]
        try:
            for worker in self._workers:
                worker.start(seed)
            for worker in self._workers:
                self._admit(worker)
        except WorkerError as error:
            self.close()
            raise EnvError(f"{config.id}: {error.worker} {error} during startup.\n{error.trace}".rstrip()) from None
        except BaseException:
            self.close()
            raise

    def reset(self, seed: int | None = None) -> Rows:
        """See `VectorEnv.reset`."""
        if seed is not None:
            self._seed = seed
        self._steps = 0
        for worker in self._workers:
            worker.restarts = 0
        return self._rows("reset", self._seed, self._patience)

    def step(self, action: np.ndarray) -> Rows:
        """See `VectorEnv.step`."""
        expected = (self.num_envs, self.spaces.action_size)
        if action.shape != expected:
            raise ValueError(f"The actions have the shape {action.shape}, expected [num_envs, A] = {expected}.")
        assert self._shared is not None
        self._shared.action[:] = action
        self._steps += 1
        return self._rows("step", self._steps, self._config.worker_timeout)

    def take_events(self) -> list[EnvEvent]:
        """See `VectorEnv.take_events`."""
        events, self._events = self._events, []
        return events

    def state(self) -> bytes | None:
        """See `VectorEnv.state`; also None after an error."""
        for worker in self._workers:
            worker.ask("state")
        try:
            states = [worker.answer(self._patience) for worker in self._workers]
        except WorkerError:
            return None
        if None in states:
            return None
        return saving.merge(states, self._config.id)

    def load(self, state: bytes) -> None:
        """See `VectorEnv.load`."""
        self._steps = saving.check(state, self._config.id, self.num_envs)
        for worker in self._workers:
            worker.ask("load", saving.share(state, self._config.id, worker.copies))
        problems = []
        for worker in self._workers:
            try:
                worker.answer(self._patience)
            except (StateError, WorkerError) as error:  # read the other workers' answers before raising
                problems.append(error)
        if problems:
            raise StateError(str(problems[0]))

    def end_episodes(self, copies: np.ndarray) -> None:
        """See `VectorEnv.end_episodes`."""
        for worker in self._workers:
            worker.ask("end_episodes", copies[worker.copies])
        for worker in self._workers:
            with contextlib.suppress(WorkerError):  # the next step reports it
                worker.answer(self._patience)

    def close(self) -> None:
        """See `VectorEnv.close`."""
        for worker in self._workers:
            worker.ask_to_end()
        deadline = time.monotonic() + END_SECONDS
        for worker in self._workers:
            worker.end(deadline - time.monotonic())
        if self._shared is not None:
            self._shared.file.close()

    def _admit(self, worker: Worker) -> None:
        """Waits until a worker has made its environments, and shares the memory with it."""
        spaces, descriptions = worker.answer(self._patience)
        if self._shared is None:
            self.spaces, self.descriptions = spaces, descriptions
            self._shared = SharedRows(spaces, self.num_envs)
        if spaces != self.spaces:
            raise EnvError(f"{self._config.id}: the spaces of {worker} are {spaces}, expected {self.spaces}.")
        worker.share(self._shared.file)

    def _rows(self, command: str, argument: int, seconds: float) -> Rows:
        """Sends a command to all workers; returns a copy of the shared rows."""
        for worker in self._workers:
            worker.ask(command, argument)
        for worker in self._workers:
            try:
                events = worker.answer(seconds)
            except WorkerError as error:
                events = self._restart(worker, error)
            self._events += [event._replace(copy=worker.copies.start + event.copy) for event in events]
        assert self._shared is not None
        rows = self._shared.rows
        return Rows({name: seen.copy() for name, seen in rows.obs.items()}, *(part.copy() for part in rows[1:]))

    def _restart(self, worker: Worker, error: WorkerError) -> list[EnvEvent]:
        """Replaces a failed worker, and resets its copies.

        Raises:
            EnvError: the worker has failed too often.
        """
        limit, minutes, events = self._config.worker_failures, self._config.worker_failure_minutes, []
        while True:
            worker.end(END_SECONDS)
            what = f"{self._config.id}: {worker} {error} (step {self._steps})"
            if worker.count_failure(60.0 * minutes) >= limit:
                raise EnvError(
                    f"{what}; failures in {minutes:g} minutes: {limit}.\n{error.trace}".rstrip()
                    + f"\nFix the environment, or allow more failures (--env.worker-failures, now {limit}) or more "
                    f"time (--env.worker-timeout, now {self._config.worker_timeout:g} s). To debug it, use "
                    "--env.workers 0: it then runs in this process."
                )
            events.append(EnvEvent(0, interrupted=f"{what}; it was restarted, and its copies start new episodes."))
            worker.restarts += 1
            try:
                worker.start(self._seed)
                self._admit(worker)
                worker.ask("reset")
                return events + worker.answer(self._patience)
            except WorkerError as again:
                error = again
