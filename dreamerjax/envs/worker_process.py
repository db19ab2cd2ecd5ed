"""One process that steps copies of an environment, and its handle in the parent.

Actions and rows lie in memory that all processes see; only short messages go through a pipe.
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

# Not a fork: JAX has threads. Not a fork server: it would keep the environment variables of its own start, and save
# nothing unless it had imported JAX, too.
SPAWN = multiprocessing.get_context("spawn")
END_SECONDS = 2.0  # a worker gets these to end by itself, and these again after SIGTERM
DUMP_SECONDS = 0.5  # it gets these to write where it hangs


class WorkerError(Exception):
    """What happened to a worker, to follow its name, and where, if that is known."""

    def __init__(self, worker: "Worker", what: str, trace: str = "") -> None:
        """Takes the worker, a few words, and a traceback."""
        super().__init__(what)
        self.worker, self.trace = worker, trace


class Worker:
    """The handle of one worker: its process, the pipes to it, and when it failed."""

    copies: slice  # its share
    restarts: int  # since the last reset
    _process: SpawnProcess | None = None
    _pipe: Connection
    _answers: IO[bytes]  # what comes through it
    _where: Connection  # it writes there where it crashes or hangs

    def __init__(self, config: EnvConfig, number: int, copies: list[int], all_copies: int) -> None:
        """A worker for these copies, of so many in all; `start` starts it."""
        span = f"copies {copies[0]} to {copies[-1]}" if len(copies) > 1 else f"copy {copies[0]}"
        self._name = f"worker {number} ({span})"
        self.copies, self.restarts = slice(copies[0], copies[-1] + 1), 0
        self._config, self._all_copies = config, all_copies
        self._request, self._asked = 0, 0.0
        self._failures: deque[float] = deque()

    def __str__(self) -> str:
        return self._name

    def start(self, seed: int) -> None:
        """Starts the process; its first answer will be the spaces."""
        if self.restarts:  # not the same episodes again
            seed = int(np.random.SeedSequence((seed, self.restarts)).generate_state(1)[0])
        (self._pipe, pipe), (self._where, where) = SPAWN.Pipe(), SPAWN.Pipe(duplex=False)
        args = (pipe, where, self._config, self.copies, self._all_copies, seed)
        self._process = SPAWN.Process(target=_work, args=args, name=f"{self._config.id} {self}", daemon=True)
        # `Connection.recv` reads a message in two parts; after Ctrl-C between them the next one could not be read. Here
        # the whole message is read in C, and with a buffer of one byte nothing of the next one.
        self._answers = io.BufferedReader(io.FileIO(self._pipe.fileno(), closefd=False), 1)
        self._request, self._asked = 0, time.monotonic()
        resource_tracker.ensure_running()  # its own start would change the mask
        # The process inherits the mask: Ctrl-C and a terminal that closes are for the parent alone, and SIGUSR1 waits
        # until it can say where it is.
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
        """Says what to do next. If nobody listens, `answer` will tell."""
        self._request, self._asked = self._request + 1, time.monotonic()
        with contextlib.suppress(OSError):
            self._pipe.send((self._request, command, arguments))

    def share(self, file: IO[bytes]) -> None:
        """Lets the process see the shared memory."""
        with contextlib.suppress(OSError):
            reduction.send_handle(self._pipe, file.fileno(), None)

    def answer(self, seconds: float) -> Any:
        """What it says to what it was asked last, within so many seconds of that.

        Raises:
            WorkerError: it raised, died or hangs.
            EnvError, ConfigError: a mistake of the user or of the environment, which a new start would only hide.
            StateError: it cannot take over the state, and goes on as it was.
        """
        process, deadline = self._process, self._asked + seconds
        if process is None or process.pid is None:
            raise WorkerError(self, "could not be started")
        while True:
            try:
                if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                    os.kill(process.pid, signal.SIGUSR1)
                    where = self._read_where()
                    if not self._pipe.poll():  # else all processes were stopped for a while, as by Ctrl-Z
                        process.terminate()
                        raise WorkerError(self, f"did not answer within {seconds:g} s", where)
                request, kind, content = pickle.load(self._answers)
            except (EOFError, OSError, pickle.UnpicklingError):  # the last: it died before it had said all
                process.join(END_SECONDS)
                code = process.exitcode or 0
                killed = f"was killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else ""
                raise WorkerError(self, killed or f"died with exit code {code}", self._read_where()) from None
            if request != self._request:  # an interrupt had left it behind
                continue
            if kind in ("mistake", "refused"):
                raise content
            if kind == "failed":
                raise WorkerError(self, *content)
            return content

    def count_failure(self, seconds: float) -> int:
        """Counts one more; returns how many there were in the last so many seconds."""
        self._failures.append(time.monotonic())
        while self._failures[-1] - self._failures[0] > seconds:
            self._failures.popleft()
        return len(self._failures)

    def ask_to_end(self) -> None:
        """Lets the process close its environments and end."""
        if self._process is not None:
            self._pipe.close()

    def end(self, seconds: float) -> None:
        """Gives the process so many seconds to end by itself, then ends it."""
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
        """The stack that a process has written, empty if it has not."""
        written = b""
        with contextlib.suppress(OSError):
            while self._where.poll(DUMP_SECONDS) and (piece := os.read(self._where.fileno(), 65536)):
                written += piece
        return written.decode(errors="replace").rstrip()


class SharedRows:
    """The actions and rows of all copies, in memory that all processes see."""

    def __init__(self, spaces: Spaces, num_envs: int, file: IO[bytes] | None = None) -> None:
        """Makes the memory, or finds it in the file that another process has made."""
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
        file.truncate(layout.itemsize)  # to its size, which it may have already
        memory = np.ndarray((), layout, mmap.mmap(file.fileno(), layout.itemsize))
        obs = {spec.name: memory[f"obs.{spec.name}"] for spec in spaces.obs}
        self.file, self.action = file, memory["action"]
        self.rows = Rows(obs, *(memory[name] for name in Rows._fields[1:]))


def _nameless_file() -> IO[bytes]:
    """In memory, where the system has such files; nothing of it is left behind, however the processes end."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("rows"), "r+b")
    return tempfile.TemporaryFile()


def _work(pipe: Connection, where: Connection, config: EnvConfig, copies: slice, all_copies: int, seed: int) -> None:
    """The worker's side: does what it is asked until the pipe ends, or something fails."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    faulthandler.enable(where.fileno(), all_threads=False)
    faulthandler.register(signal.SIGUSR1, where.fileno(), all_threads=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # in this thread alone
    request, env, answers = 0, None, io.BufferedWriter(io.FileIO(pipe.fileno(), "wb", closefd=False))

    def say(kind: str, content: Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            pickle.dump((request, kind, content), answers)
            answers.flush()

    try:
        env = SerialVectorEnv(config, num_envs=copies.stop - copies.start, seed=seed, first_copy=copies.start)
        say("done", (env.spaces, env.descriptions))
        with os.fdopen(reduction.recv_handle(pipe), "r+b") as file:
            shared = SharedRows(env.spaces, all_copies, file)
        while True:
            request, command, arguments = pipe.recv()
            if command == "step":
                env.steps = arguments[0] - 1  # also those before this process
                arguments = (shared.action[copies].copy(),)
            try:
                done = getattr(env, command)(*arguments)
            except StateError as error:  # it goes on as it was
                say("refused", error)
                continue
            if isinstance(done, Rows):
                for name, seen in shared.rows.obs.items():
                    seen[copies] = done.obs[name]
                for seen, part in zip(shared.rows[1:], done[1:], strict=True):
                    seen[copies] = part
                done = env.take_events()
            say("done", done)
    except EnvFailureError as error:
        say("failed", (error.what, error.trace))
    except (EnvError, ConfigError) as error:
        say("mistake", error)
    except Exception as error:  # the end of the pipe is one, too
        say("failed", (f"raised {type(error).__name__}: {error}", traceback.format_exc()))
    finally:
        with contextlib.suppress(Exception):
            if env is not None:
                env.close()
        with contextlib.suppress(OSError):
            answers.close()


def _end_with_parent() -> None:
    """Ends this process soon after its parent, however that ends, and whatever this one is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(END_SECONDS)  # the end of the pipe is the gentler way
    os._exit(1)
