"""Memory of this process and of the machine, as they are told and given back."""

import ctypes

import pytest

from dreamerjax.host.memory import free_memory, give_back_memory, memory_mb, memory_sentence

LIBC = ctypes.CDLL(None)
PIECE, PIECES = 100_000, 2_000  # bytes; small enough that glibc does not ask the system for each


@pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="glibc alone gives holes back")
def test_holes_between_what_is_in_use_are_given_back():
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


def test_a_replay_that_is_too_large_is_said_to_be():
    free = free_memory()
    if free is None:
        pytest.skip("the system does not tell")
    assert "--replay.storage disk" in memory_sentence(2 * free, 1_000)
    assert "--replay" not in memory_sentence(1, 1_000)
