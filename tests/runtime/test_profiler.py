"""Chunks of traces: when they start and end, and that viewers can read their files."""

import gzip
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dreamerjax.runtime.profiler import Profiler


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the starts and stops instead of tracing."""
    said: list[str] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: said.append(f"begin {Path(folder).name}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: said.append("end"))
    return said


def test_chunks_start_and_end_at_the_right_dispatches(traced: list[str], tmp_path: Path):
    profiler = Profiler(tmp_path, first=2, dispatches=3, every=5, chunks=2)
    when: list[tuple[int, str]] = []
    for dispatch in range(1, 20):
        profiler.dispatched(jnp.zeros(()))
        when += [(dispatch, said) for said in traced]
        traced.clear()
    assert when == [(2, "begin chunk-000002"), (5, "end"), (7, "begin chunk-000007"), (10, "end")]


def test_closing_ends_an_open_chunk_once(traced: list[str], tmp_path: Path):
    profiler = Profiler(tmp_path, first=1)
    profiler.dispatched(jnp.zeros(()))
    profiler.close()
    profiler.close()
    assert traced == ["begin chunk-000001", "end"]


def test_without_a_folder_nothing_happens(traced: list[str]):
    profiler = Profiler(None)
    for _ in range(10):
        profiler.dispatched(jnp.zeros(()))
    profiler.close()
    assert traced == []


def test_a_chunk_is_a_file_that_perfetto_reads(tmp_path: Path):
    profiler = Profiler(tmp_path, first=1, dispatches=1)
    for _ in range(2):
        profiler.dispatched(jax.jit(lambda x: x @ x)(jnp.eye(64)))
    (trace,) = tmp_path.glob("chunk-000001/**/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("dot" in str(event.get("name")) for event in events)
