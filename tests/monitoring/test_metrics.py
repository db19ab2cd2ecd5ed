"""The metrics file: valid JSON for all numbers, and complete lines only, also after a kill."""

import json
import math
import resource
import struct
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event as EventProto  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

from dreamerjax.monitoring.metrics import MetricsWriter, read_metrics


def strict_json(line: str) -> dict:
    """Parses strictly: NaN and Infinity, which Python would accept, are errors."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


def read_events(folder: Path) -> list:
    """All TensorBoard events in a folder, file by file, with both checksums of each record checked."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("Q", data[:8])
            header, body = data[:8], data[12 : 12 + length]
            assert struct.unpack("I", data[8:12])[0] == masked_crc32c(header)
            assert struct.unpack("I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
            events.append(EventProto.FromString(body))
            data = data[16 + length :]
    return events


def test_a_line_opens_with_the_counters_and_keeps_the_given_order(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl", None) as writer:
        writer.write(4000, 500, 61.23456, {"train/b": 2.5, "episode/return": 212, "train/a": 0.1})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == (
        '{"step": 4000, "update": 500, "wall_seconds": 61.235, '
        '"train/b": 2.5, "episode/return": 212.0, "train/a": 0.1}\n'
    )


@pytest.mark.parametrize(
    "kind", [float, int, bool, np.float32, np.float64, np.int64, np.array, jnp.float32, jnp.asarray]
)
def test_numbers_of_any_library_are_written_as_floats(tmp_path, kind):
    value = kind(0.1)
    with MetricsWriter(tmp_path / "metrics.jsonl", None) as writer:
        writer.write(1, 2, 3, {"x": value})
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert type(row["x"]) is float
    assert row == {"step": 1, "update": 2, "wall_seconds": 3.0, "x": float(value)}


@given(st.lists(st.floats(), max_size=5))
def test_any_floats_give_valid_json_that_reads_back_exactly(values):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        with MetricsWriter(path, None) as writer:
            writer.write(0, 0, 0.0, {f"x{i}": value for i, value in enumerate(values)})
        row = strict_json(path.read_text())
        (read,) = read_metrics(path)
    for i, value in enumerate(values):
        if math.isfinite(value):
            assert row[f"x{i}"] == read[f"x{i}"] == value
        else:
            assert row[f"x{i}"] is None
            assert math.isnan(read[f"x{i}"])


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    with MetricsWriter(path, None) as writer:
        for step in range(3):
            writer.write(step, 0, 0.0, {"x": step})
            assert [row["step"] for row in read_metrics(path)] == list(range(step + 1))
            assert writer.position() == path.stat().st_size


@pytest.mark.parametrize("left_behind", ["", '{"step": 9, "upd', '{"step": 9}\n{"step": 10', '{"step": 9}\n'])
def test_resuming_cuts_what_came_after_the_checkpoint(tmp_path, left_behind):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, None) as writer:
        writer.write(1, 0, 0.0, {"x": 1})
        writer.write(2, 0, 0.0, {"x": 2})
        kept = writer.position()
    with path.open("a") as file:
        file.write(left_behind)
    with MetricsWriter(path, None, keep_bytes=kept) as writer:
        assert writer.position() == kept
        writer.write(3, 0, 0.0, {"x": 3})
        assert writer.position() == path.stat().st_size
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_without_a_checkpoint_only_an_incomplete_line_is_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    MetricsWriter(path, None).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_keeping_nothing_starts_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    MetricsWriter(path, None, keep_bytes=0).close()
    assert path.read_text() == ""


def test_a_file_shorter_than_the_checkpoint_says_is_kept_whole_and_not_padded(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    MetricsWriter(path, None, keep_bytes=1000).close()
    assert path.read_text() == '{"step": 1}\n'


def test_reserved_names_and_arrays_are_refused_and_leave_no_incomplete_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, tmp_path / "tensorboard") as writer:
        with pytest.raises(ValueError, match="cannot be named 'step'"):
            writer.write(0, 0, 0.0, {"x": 1.0, "step": 2.0})
        with pytest.raises(ValueError, match=r"train/loss has shape \(1,\)"):
            writer.write(0, 0, 0.0, {"x": 1.0, "train/loss": np.ones(1)})
    assert path.read_text() == ""


def test_reading_refuses_a_broken_line_unless_it_is_the_last_and_incomplete(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        read_metrics(path)
    path.write_text('{"step": 1}\n[2]\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)
    path.write_text('{"step": 1}\n{"step": 2}')  # complete, except for its end of line
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_bytes(b'{"step": 1}\n\x00\x00\x00')  # as after a power failure
    assert read_metrics(path) == [{"step": 1}]
    path.write_text("")
    assert read_metrics(path) == []


def test_tensorboard_gets_the_same_numbers_and_nan_as_it_is(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tensorboard") as writer:
        writer.write(10, 1, 0.5, {"episode/return": 12.5, "train/loss": math.nan})
        writer.write(20, 2, 1.5, {"episode/return": jnp.float32(13.5)})
    first, *events = read_events(tmp_path / "tensorboard")
    assert first.file_version == "brain.Event:2"
    scalars = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    assert [(step, tag) for step, tag, _ in scalars] == [
        (10, "episode/return"),
        (10, "train/loss"),
        (20, "episode/return"),
    ]
    assert scalars[0][2] == 12.5
    assert math.isnan(scalars[1][2])
    assert scalars[2][2] == 13.5
    assert all(event.wall_time > 1.6e9 for event in events)


def test_a_resumed_run_adds_an_event_file_that_purges_what_it_repeats(tmp_path):
    for purge_step in (None, 10):  # both within the second that names the files
        with MetricsWriter(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", purge_step=purge_step) as writer:
            writer.write(10, 1, 0.5, {"x": 1.0})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    _, _, _, restart, written = read_events(tmp_path / "tensorboard")
    assert (restart.step, restart.session_log.status) == (10, SessionLog.START)
    assert written.step == 10


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing_open(tmp_path):
    (tmp_path / "a-file").write_text("")
    with pytest.raises(OSError, match="a-file"):
        MetricsWriter(tmp_path / "a-file" / "metrics.jsonl", None)


def test_metrics_continue_without_tensorboard(tmp_path):
    (tmp_path / "a-file").write_text("")
    for tensorboard in (tmp_path / "a-file" / "tensorboard", Path("/dev/full")):
        said = []
        with MetricsWriter(tmp_path / "metrics.jsonl", tensorboard, keep_bytes=0, say=said.append) as writer:
            writer.write(1, 1, 1.0, {"x": 1.0})
            writer.write(2, 2, 2.0, {"x": 2.0})
        (sentence,) = said
        assert str(tensorboard) in sentence
        assert [row["x"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0]


def test_a_line_that_cannot_be_written_is_removed_and_not_written_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path, None)
    writer.write(1, 1, 1.0, {"x": 1.0})
    there = writer.position()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (there + 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            writer.write(2, 2, 2.0, {"x": 2.0})
        assert writer.position() == there
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [row["x"] for row in read_metrics(path)] == [1.0]
    writer.write(3, 3, 3.0, {"x": 3.0})
    writer.close()
    assert [row["x"] for row in read_metrics(path)] == [1.0, 3.0]


def test_closing_twice_is_fine_and_errors_close_too(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl", tmp_path / "tensorboard")

    def run():
        with writer:
            writer.write(1, 1, 1.0, {"x": 1.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    writer.close()
    assert len(read_metrics(tmp_path / "m.jsonl")) == 1
    assert len(read_events(tmp_path / "tensorboard")) == 2
