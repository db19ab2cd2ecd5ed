"""The shared part of all adapters: the command line, the random batches, the protocol on stdin and stdout.

An adapter is a separate process in the virtual environment of its implementation. It prints one JSON line when it is
ready. Then, for each line "N" on stdin, it makes N timed updates and prints one JSON line with their seconds. Output of
the implementation itself goes to stderr. Needs only the standard library and NumPy.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

VECTOR_SIZE = 4
IMAGE_SHAPE = (64, 64, 3)
ACTIONS = 2
HORIZON = 15
GROUPS = 32
WARMUP_UPDATES = 3
EPISODE_END_PROBABILITY = 0.02

# The sizes of the authors' code; `units` is the width of the MLPs and of the RSSM's hidden layers.
SIZES = {
    "1m": {"deter": 512, "units": 64, "classes": 4, "depth": 4},
    "12m": {"deter": 2048, "units": 256, "classes": 16, "depth": 16},
    "25m": {"deter": 3072, "units": 384, "classes": 24, "depth": 24},
    "50m": {"deter": 4096, "units": 512, "classes": 32, "depth": 32},
    "200m": {"deter": 8192, "units": 1024, "classes": 64, "depth": 64},
}

Batch = dict[str, np.ndarray]


class Rival(Protocol):
    """One implementation, built and ready to train."""

    name: str
    version: str
    parameters: int  # trained ones: without the slow critic and the optimizer's state
    settings: dict[str, Any]
    notes: str

    def prepare(self, updates: int) -> None:
        """Makes the batches of that many updates; not timed."""
        ...

    def update(self) -> None:
        """Makes one full training update and waits for its results; timed."""
        ...

    def peak_memory_mb(self) -> float:
        """Peak memory so far; on the device, if the framework reports it."""
        ...


def random_batch(rng: np.random.Generator, batch: int, length: int, image: bool) -> Batch:
    """Rows [B, T, ...] as the authors' code stores them: the observation, and the action taken after it."""
    ends = rng.random((batch, length)) < EPISODE_END_PROBABILITY
    is_first = np.zeros_like(ends)
    is_first[:, 1:] = ends[:, :-1]
    is_first[:, 0] = rng.random(batch) < EPISODE_END_PROBABILITY
    if image:
        observation = rng.integers(0, 256, (batch, length, *IMAGE_SHAPE), np.uint8)
    else:
        observation = rng.standard_normal((batch, length, VECTOR_SIZE), np.float32)
    return {
        "observation": observation,
        "action": rng.integers(0, ACTIONS, (batch, length), np.int32),
        "reward": rng.standard_normal((batch, length), np.float32),
        "is_first": is_first,
        "is_last": ends,
        "is_terminal": ends & (rng.random((batch, length)) < 0.5),
    }


def random_latents(rng: np.random.Generator, batch: int, length: int, size: str) -> tuple[np.ndarray, np.ndarray]:
    """Recurrent [B, T, D] and one-hot stochastic states [B, T, G, C]: the initial states that replay buffers store."""
    deter = np.tanh(rng.standard_normal((batch, length, SIZES[size]["deter"]), np.float32))
    classes = SIZES[size]["classes"]
    return deter, np.eye(classes, dtype=np.float32)[rng.integers(0, classes, (batch, length, GROUPS))]


def commit_of(source: Path) -> str:
    """The commit of a clone, or the content of the file COMMIT of an exported tree."""
    if (source / ".git").exists():
        return subprocess.check_output(["git", "-C", str(source), "rev-parse", "HEAD"], text=True).strip()
    commit = source / "COMMIT"
    return commit.read_text().strip() if commit.exists() else "unknown commit"


def host_peak_mb() -> float:
    """Peak memory of this process, including its start and compilation (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refuse(reason: str) -> NoReturn:
    """Ends the process with exit code 2: it cannot do the requested work."""
    print(f"error: {reason}", file=sys.stderr)
    sys.exit(2)


def parse_arguments(description: str) -> argparse.Namespace:
    """Reads the command line, the same for all adapters."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=SIZES, default="1m")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--image", action="store_true", help="observe a 64x64x3 uint8 image instead of a vector of 4")
    parser.add_argument("--source", type=Path, help="the rival's clone, unless it is an installed package")
    parser.add_argument("--compile", choices=["default", "on", "off"], default="default", help="torch.compile")
    return parser.parse_args()


def serve(description: str, build: Callable[[argparse.Namespace], Rival]) -> None:
    """Builds and warms up the implementation, then times updates as requested on stdin, until stdin closes."""
    arguments = parse_arguments(description)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Output of the implementation, from Python or from C, must not mix with the answers.

    rival = build(arguments)
    calls = getattr(rival, "updates_per_call", 1)  # several, if the implementation makes more than one update per call
    rival.prepare(WARMUP_UPDATES)
    for _ in range(-(-WARMUP_UPDATES // calls)):
        rival.update()
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    facts = {name: getattr(rival, name) for name in ("name", "version", "parameters", "notes")}
    print(json.dumps({"ready": True, **facts, "settings": asked | rival.settings}), file=answers, flush=True)

    for line in sys.stdin:
        updates = int(line)
        rival.prepare(updates)
        seconds = []
        for _ in range(-(-updates // calls)):
            start = time.perf_counter()
            rival.update()
            seconds.append((time.perf_counter() - start) / calls)
        answer = {"seconds": seconds, "peak_memory_mb": round(rival.peak_memory_mb(), 1)}
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # Background threads of the implementation must not keep the process alive.
