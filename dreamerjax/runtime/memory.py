"""Memory of this process and of the machine, and whether a replay buffer fits into it."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

from dreamerjax.config import ConfigError, ModelConfig, ReplayConfig
from dreamerjax.replay.ring import row_bytes
from dreamerjax.types import Spaces

# Files with a container's memory limit and usage: cgroup v2 and v1.
CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


USABLE = 0.9  # share of the free memory available to the replay buffer; the rest is for programs


def check_replay_fits(config: ReplayConfig, spaces: Spaces, model: ModelConfig) -> None:
    """Checks that the replay buffer fits into the free memory, before anything is allocated.

    Raises:
        ConfigError: it does not fit; the message names a capacity that does, and an alternative.
    """
    row = row_bytes(spaces, model if config.context else None, images=config.storage != "disk")
    free = free_memory()
    if free is None or row * config.capacity <= USABLE * free:
        return
    fits = int(USABLE * free / row)
    rounded = max(1, fits - fits % 10 ** max(0, len(str(fits)) - 2))
    images = any(spec.is_image for spec in spaces.obs) and config.storage != "disk"
    otherwise = ", or --replay.storage disk, which stores images in files" if images else ""
    raise ConfigError(
        f"replay.capacity is {config.capacity:,} rows, which need {_bytes(row * config.capacity)}, but this machine "
        f"has {_bytes(free)} free. Use --replay.capacity {rounded}, which fits{otherwise}."
    )


def memory_sentence(replay_bytes: int, capacity: int) -> str:
    """The memory of the full replay buffer, and the free memory of the machine."""
    sentence = f"The replay buffer will need {_bytes(replay_bytes)} at its capacity of {capacity:,} rows"
    free = free_memory()
    return f"{sentence}." if free is None else f"{sentence}; this machine has {_bytes(free)} free."


def free_memory() -> int | None:
    """Free memory in bytes, within the container's limit if there is one; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    for limit, used in CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, free)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def memory_mb() -> float:
    """Resident memory of this process in MB; its peak where the system does not report the present value."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def give_back_memory() -> None:
    """Returns freed memory of this process to the system, if the C library supports it (glibc).

    Otherwise glibc keeps free memory between used blocks, and the fragmentation from making films makes the process
    grow during a long run.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
