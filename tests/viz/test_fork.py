"""Comparison of a run with its parent."""

import json
from pathlib import Path
from typing import Any

import pytest

from dreamerjax.runs.lineage import Event
from dreamerjax.viz.fork import Parent, parent_comparison, parent_of


def line(step: int, mean: float, std: float = 10.0) -> dict[str, Any]:
    evaluation = {"eval/return_mean": mean, "eval/return_std": std, "eval/episodes": 20}
    return {"step": step, "update": step // 10, "wall_seconds": 1.0, **evaluation}


def forked(parent: Path, step: int) -> tuple[Event, ...]:
    return (Event("begun", "x", 0, None, {}, None), Event("forked", "y", step, str(parent), {}, None))


def write(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


def test_a_parent_is_found_at_its_path_or_next_to_its_fork(tmp_path: Path) -> None:
    parent = write(tmp_path / "parent", [line(500, 20), line(1000, 100)])
    found = parent_of(tmp_path / "fork", forked(parent, 1000))
    assert found is not None
    assert [each["step"] for each in found.lines] == [-500, 0], "steps count from the fork"
    moved = tmp_path / "moved"
    moved.mkdir()
    parent.rename(moved / "parent")
    found = parent_of(moved / "fork", forked(parent, 1000))
    assert found is not None
    assert found.folder == moved / "parent"


def test_a_run_without_fork_has_no_parent_and_a_missing_parent_gives_an_error(tmp_path: Path) -> None:
    assert parent_of(tmp_path / "run", forked(tmp_path, 0)[:1]) is None
    assert parent_of(tmp_path / "run", ()) is None
    with pytest.raises(FileNotFoundError, match=r"forked from .*gone, which does not exist any more"):
        parent_of(tmp_path / "run", forked(tmp_path / "gone", 1000))


@pytest.mark.parametrize(
    ("own", "parents", "expected"),
    [
        ([(500, 300)], [(0, 100)], "This is above the parent's 100.0 at the fork."),
        ([(500, 102)], [(0, 100)], "This is not significantly different from the parent's 100.0 at the fork."),
        ([(500, 20)], [(0, 100)], "This is below the parent's 100.0 at the fork."),
        (
            [(500, 300)],
            [(0, 100), (500, 400), (1000, 500)],
            "The parent continued: it had 400.0 at 500 steps after the fork, and this run is below that.",
        ),
        ([], [(0, 100)], "This run has no evaluation, so they cannot be compared."),
        ([(500, 300)], [], "Its parent has no evaluation, so they cannot be compared."),
    ],
)
def test_comparison_with_the_parent(own: list[tuple], parents: list[tuple], expected: str) -> None:
    parent = Parent(Path("runs/a"), [line(*each) for each in parents], 1000)
    assert expected in parent_comparison(parent, [line(*each) for each in own])
