"""Memory of this process and of the machine, and whether a replay fits into it."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

from dreamerjax.config import ConfigError, ModelConfig, ReplayConfig
from dreamerjax.replay.ring import row_bytes
from dreamerjax.types import Spaces

# Files in which a container's limit and use stand: of control groups of version 2, and of version 1.
CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


USABLE = 0.9  # share of the free memory that a replay may take: programs need some, too


def check_replay_fits(config: ReplayConfig, spaces: Spaces, model: ModelConfig) -> None:
    """Refuses a replay that would not fit into the memory that is free now, before anything is allocated.

    Raises:
        ConfigError: it does not; the message says which capacity would, and what else there is.
    """
    row = row_bytes(spaces, model if config.context else None, images=config.storage != "disk")
    free = free_memory()
    if free is None or row * config.capacity <= USABLE * free:
        return
    fits = int(USABLE * free / row)
    rounded = max(1, fits - fits % 10 ** max(0, len(str(fits)) - 2))
    images = any(spec.is_image for spec in spaces.obs) and config.storage != "disk"
    otherwise = ", or --replay.storage disk, which keeps the images in files" if images else ""
    raise ConfigError(
        f"replay.capacity is {config.capacity:,} rows, which take {_bytes(row * config.capacity)}, and this machine "
        f"has {_bytes(free)} free. Give --replay.capacity {rounded}, which fits{otherwise}."
    )


def memory_sentence(replay_bytes: int, capacity: int) -> str:
    """What the replay will take when it is full, against what the machine has now."""
    sentence = f"The replay will take {_bytes(replay_bytes)} at its capacity of {capacity:,} rows"
    free = free_memory()
    return f"{sentence}." if free is None else f"{sentence}; this machine has {_bytes(free)} free."


def free_memory() -> int | None:
    """Bytes that programs can still take, in this container if it has a limit; None where the system does not tell."""
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
    """Memory of this process in MB: what it holds now, or its high-water mark where the system tells no more."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def give_back_memory() -> None:
    """Gives memory that is free within this process back to the system, where the C library can (glibc).

    It would keep what lies between pieces that are in use, and a film leaves many such holes: at each one of a long
    run it took more.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
