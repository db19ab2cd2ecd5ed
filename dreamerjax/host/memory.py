"""Memory of this process and of the machine."""

import ctypes
import resource
import sys
from pathlib import Path


def memory_sentence(replay_bytes: int, capacity: int) -> str:
    """What the replay will take when it is full, against what the machine has now."""
    sentence = f"The replay will take {_bytes(replay_bytes)} at its capacity of {capacity:,} rows"
    free = free_memory()
    if free is None:
        return f"{sentence}."
    sentence += f"; this machine has {_bytes(free)} free."
    if replay_bytes > free:
        sentence += " Give a smaller --replay.capacity, or --replay.storage disk."
    return sentence


def free_memory() -> int | None:
    """Bytes that programs can still take; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


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
