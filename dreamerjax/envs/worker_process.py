"""A process that steps copies of an environment, and its handle in the parent.

Actions and rows are in shared memory; only short messages go through a pipe.
"""

import contextlib
import faulthandler
import io
import mmap
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import IO, Any

import numpy as np

from dreamerjax.config import ConfigError, EnvConfig
from dreamerjax.envs import EnvError, EnvFailureError, StateError
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.types import Rows, Spaces

# Not fork: JAX has threads. Not forkserver: it keeps the environment variables of its own start, and saves no time
# unless it imports JAX, too.
SPAWN = multiprocessing.get_context("spawn")
END_SECONDS = 2.0  # for a worker to exit by itself, and again after SIGTERM
DUMP_SECONDS = 0.5  # for a hanging worker to write its stack


class WorkerError(Exception):
    """A worker failed. The message follows the worker's name; `trace` is a traceback, if there is one."""

    def __init__(self, worker: "Worker", what: str, trace: str = "") -> None:
        """Takes the worker, a short description such as "raised ValueError", and a traceback."""
        super().__init__(what)
        self.worker, self.trace = worker, trace


class Worker:
    """The handle of one worker: its process, its pipes, and the times of its failures."""

    copies: slice  # the indices of its copies
    restarts: int  # since the last reset
    _process: SpawnProcess | None = None
    _pipe: Connection
    _answers: IO[bytes]  # a reader of the pipe
    _where: Connection  # for the worker's stack when it crashes or hangs

    def __init__(self, config: EnvConfig, number: int, copies: list[int], all_copies: int) -> None:
        """Takes the indices of the worker's copies and the number of all copies; `start` starts the process."""
        span = f"copies {copies[0]} to {copies[-1]}" if len(copies) > 1 else f"copy {copies[0]}"
        self._name = f"worker {number} ({span})"
        self.copies, self.restarts = slice(copies[0], copies[-1] + 1), 0
        self._config, self._all_copies = config, all_copies
        self._request, self._asked = 0, 0.0
        self._failures: deque[float] = deque()

    def __str__(self) -> str:
        return self._name

    def start(self, seed: int) -> None:
        """Starts the process; its first answer is the spaces and their descriptions."""
        if self.restarts:  # do not repeat the same episodes
            seed = int(np.random.SeedSequence((seed, self.restarts)).generate_state(1)[0])
        (self._pipe, pipe), (self._where, where) = SPAWN.Pipe(), SPAWN.Pipe(duplex=False)
        args = (pipe, where, self._config, self.copies, self._all_copies, seed)
        self._process = SPAWN.Process(target=_work, args=args, name=f"{self._config.id} {self}", daemon=True)
        # `Connection.recv` reads a message in two parts, and Ctrl-C between them would break the next message. This
        # reader reads a message in one C call, and its buffer of one byte takes nothing from the next message.
        self._answers = io.BufferedReader(io.FileIO(self._pipe.fileno(), closefd=False), 1)
        self._request, self._asked = 0, time.monotonic()
        resource_tracker.ensure_running()  # starting it later would change the signal mask
        # The process inherits the mask: only the parent handles Ctrl-C and SIGHUP, and SIGUSR1 is pending until its
        # handler is installed.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
        try:
            self._process.start()
        except OSError as error:
            raise WorkerError(self, f"could not be started: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            pipe.close()
            where.close()

    def ask(self, command: str, *arguments: Any) -> None:
        """Sends a command. If the worker is gone, `answer` raises an error."""
        self._request, self._asked = self._request + 1, time.monotonic()
        with contextlib.suppress(OSError):
            self._pipe.send((self._request, command, arguments))

    def share(self, file: IO[bytes]) -> None:
        """Sends the shared memory's file to the process."""
        with contextlib.suppress(OSError):
            reduction.send_handle(self._pipe, file.fileno(), None)

    def answer(self, seconds: float) -> Any:
        """Waits for the answer to the last command, at most `seconds` after it was sent.

        Raises:
            WorkerError: the worker raised, died or hangs.
            EnvError, ConfigError: an error of the user or of the environment, which a restart would only hide.
            StateError: the worker cannot load the state, and keeps its own.
        """
        process, deadline = self._process, self._asked + seconds
        if process is None or process.pid is None:
            raise WorkerError(self, "could not be started")
        while True:
            try:
                if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                    os.kill(process.pid, signal.SIGUSR1)
                    where = self._read_where()
                    if not self._pipe.poll():  # else all processes were suspended for a while, as by Ctrl-Z
                        process.terminate()
                        raise WorkerError(self, f"did not answer within {seconds:g} s", where)
                request, kind, content = pickle.load(self._answers)
            except (EOFError, OSError, pickle.UnpicklingError):  # the last: it died while sending
                process.join(END_SECONDS)
                code = process.exitcode or 0
                killed = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else ""
                raise WorkerError(self, killed or f"died with exit code {code}", self._read_where()) from None
            if request != self._request:  # the answer to an earlier, interrupted call
                continue
            if kind in ("mistake", "refused"):
                raise content
            if kind == "failed":
                raise WorkerError(self, *content)
            return content

    def count_failure(self, seconds: float) -> int:
        """Counts a failure; returns the number of failures in the last `seconds`."""
        self._failures.append(time.monotonic())
        while self._failures[-1] - self._failures[0] > seconds:
            self._failures.popleft()
        return len(self._failures)

    def ask_to_end(self) -> None:
        """Asks the process to close its environments and exit."""
        if self._process is not None:
            self._pipe.close()

    def end(self, seconds: float) -> None:
        """Waits for the process to exit for `seconds`, then terminates it."""
        self.ask_to_end()
        if self._process is None or self._process.pid is None:
            return
        self._process.join(max(0.0, seconds))
        for force in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                force()
                self._process.join(END_SECONDS)
        self._where.close()

    def _read_where(self) -> str:
        """The stack that the process has written; empty if there is none."""
        written = b""
        with contextlib.suppress(OSError):
            while self._where.poll(DUMP_SECONDS) and (piece := os.read(self._where.fileno(), 65536)):
                written += piece
        return written.decode(errors="replace").rstrip()


class SharedRows:
    """The actions and rows of all copies, in shared memory."""

    def __init__(self, spaces: Spaces, num_envs: int, file: IO[bytes] | None = None) -> None:
        """Maps the memory of a new file, or of one that another process made."""
        file = file or _nameless_file()
        action, real, flag = (
            (np.float32, (num_envs, spaces.action_size)),
            (np.float32, (num_envs,)),
            (bool, (num_envs,)),
        )
        fields: list[tuple] = [(f"obs.{spec.name}", spec.dtype, (num_envs, *spec.shape)) for spec in spaces.obs]
        fields += [("action", *action), ("prev_action", *action), ("reward", *real)]
        fields += [("is_first", *flag), ("is_last", *flag), ("is_terminal", *flag)]
        layout = np.dtype(fields, align=True)
        file.truncate(layout.itemsize)  # sets the size of a new file
        memory = np.ndarray((), layout, mmap.mmap(file.fileno(), layout.itemsize))
        obs = {spec.name: memory[f"obs.{spec.name}"] for spec in spaces.obs}
        self.file, self.action = file, memory["action"]
        self.rows = Rows(obs, *(memory[name] for name in Rows._fields[1:]))


def _nameless_file() -> IO[bytes]:
    """A file in memory where supported; the system removes it when all processes have exited."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("rows"), "r+b")
    return tempfile.TemporaryFile()


def _work(pipe: Connection, where: Connection, config: EnvConfig, copies: slice, all_copies: int, seed: int) -> None:
    """The worker's main function: executes commands until the pipe closes or an error occurs."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    faulthandler.enable(where.fileno(), all_threads=False)
    faulthandler.register(signal.SIGUSR1, where.fileno(), all_threads=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # in this thread alone
    request, env, answers = 0, None, io.BufferedWriter(io.FileIO(pipe.fileno(), "wb", closefd=False))

    def send(kind: str, content: Any) -> None:
        with contextlib.suppress(OSError):  # the parent has closed the pipe
            pickle.dump((request, kind, content), answers)
            answers.flush()

    try:
        env = SerialVectorEnv(config, num_envs=copies.stop - copies.start, seed=seed, first_copy=copies.start)
        send("done", (env.spaces, env.descriptions))
        with os.fdopen(reduction.recv_handle(pipe), "r+b") as file:
            shared = SharedRows(env.spaces, all_copies, file)
        while True:
            request, command, arguments = pipe.recv()
            if command == "step":
                env.steps = arguments[0] - 1  # including steps before a restart
                arguments = (shared.action[copies].copy(),)
            try:
                done = getattr(env, command)(*arguments)
            except StateError as error:  # the environments are unchanged
                send("refused", error)
                continue
            if isinstance(done, Rows):
                for name, seen in shared.rows.obs.items():
                    seen[copies] = done.obs[name]
                for seen, part in zip(shared.rows[1:], done[1:], strict=True):
                    seen[copies] = part
                done = env.take_events()
            send("done", done)
    except EnvFailureError as error:
        send("failed", (error.what, error.trace))
    except (EnvError, ConfigError) as error:
        send("mistake", error)
    except Exception as error:  # includes EOFError, when the pipe closes
        send("failed", (f"raised {type(error).__name__}: {error}", traceback.format_exc()))
    finally:
        with contextlib.suppress(Exception):
            if env is not None:
                env.close()
        with contextlib.suppress(OSError):
            answers.close()


def _end_with_parent() -> None:
    """Exits this process soon after its parent exits for any reason, even if the main thread hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(END_SECONDS)  # normally the closed pipe ends this process first
    os._exit(1)
