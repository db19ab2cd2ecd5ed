"""Memory of this process and of the machine: reported, checked and returned to the system."""

import ctypes
import re

import pytest

from dreamerjax.config import Config, ConfigError, ReplayConfig, resolve
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.ring import Ring, row_bytes
from dreamerjax.runtime.memory import check_replay_fits, free_memory, give_back_memory, memory_mb, memory_sentence
from dreamerjax.types import ActionSpec, ObsSpec, Spaces

LIBC = ctypes.CDLL(None)
PIECE, PIECES = 100_000, 2_000  # bytes; small enough that glibc does not use mmap for each


@pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="glibc alone gives holes back")
def test_free_memory_between_used_blocks_is_returned():
    LIBC.malloc.restype, LIBC.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    give_back_memory()
    pieces = [LIBC.malloc(ctypes.c_size_t(PIECE)) for _ in range(PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE)
    for number, piece in enumerate(pieces):
        if number % 20:
            LIBC.free(piece)
    before = memory_mb()
    give_back_memory()
    after = memory_mb()
    for piece in pieces[::20]:
        assert ctypes.string_at(piece, 1) == b"\x01"
        LIBC.free(piece)
    assert before - after > 0.8 * PIECE * PIECES / 1e6


def test_a_replay_that_is_too_large_is_refused():
    free = free_memory()
    if free is None:
        pytest.skip("the system does not report free memory")
    assert "this machine has" in memory_sentence(1, 1_000)
    vector = Spaces((ObsSpec("state", (4,)),), (ActionSpec("discrete", 2),))
    picture = Spaces((ObsSpec("image", (64, 64, 3)),), (ActionSpec("discrete", 2),))
    model = resolve(Config()).agent.model
    for spaces, disk in ((vector, False), (picture, True)):
        fits = ReplayConfig(capacity=max(1, free // 2 // row_bytes(spaces, model)))
        check_replay_fits(fits, spaces, model)
        with pytest.raises(ConfigError) as caught:
            check_replay_fits(ReplayConfig(capacity=4 * fits.capacity), spaces, model)
        advised = re.search(r"Use --replay\.capacity (\d+), which fits", str(caught.value))
        assert advised is not None
        check_replay_fits(ReplayConfig(capacity=int(0.95 * int(advised[1]))), spaces, model)
        assert ("--replay.storage disk" in str(caught.value)) == disk


def test_the_size_of_a_row_is_what_the_replay_allocates():
    spaces = Spaces((ObsSpec("image", (32, 32, 1)), ObsSpec("board", (6, 7), 3)), (ActionSpec("continuous", 2),))
    model = resolve(Config()).agent.model
    for context in (model, None):
        replay = Replay(Ring(spaces, num_envs=2, capacity=64), seed=0, context=context)
        assert replay.bytes_at_capacity == 64 * row_bytes(spaces, context)
