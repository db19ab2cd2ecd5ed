"""Compares a run with the run that it was forked from."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from dreamerjax.config import Config
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.lineage import Event
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.viz.curves import draw_returns
from dreamerjax.viz.learning import Score, scores_of
from dreamerjax.viz.verdict import Lines


class Parent(NamedTuple):
    """The run from which another one was forked."""

    folder: Path
    lines: list[dict[str, Any]]  # of its metrics.jsonl, with steps counted from the fork
    forked_at: int  # environment steps of the parent


def parent_of(run_dir: Path, lineage: Sequence[Event]) -> Parent | None:
    """The parent of a run; None if the run is no fork.

    Args:
        run_dir: the run.
        lineage: of its newest checkpoint.

    Raises:
        FileNotFoundError: the parent's metrics are not found; the message is a sentence for the report.
    """
    forks = [event for event in lineage if event.what == "forked"]
    if not forks or forks[-1].parent is None:
        return None
    named = Path(forks[-1].parent)
    for folder in (named, run_dir.resolve().parent / named.name):  # both may have been moved to another folder
        try:
            lines = read_metrics(RunFolder(folder).metrics_path)
        except (OSError, ValueError):
            continue
        at = forks[-1].step
        return Parent(folder, [line | {"step": line["step"] - at} for line in lines], at)
    raise FileNotFoundError(
        f"This run was forked from {named}, which does not exist any more, so they cannot be compared."
    )


def parent_comparison(parent: Parent, lines: Lines) -> str:
    """Compares the fork's return with the parent's at the fork, and with the parent's after the same number of steps.

    Args:
        parent: of `parent_of`.
        lines: of the fork.
    """
    own, others = list(scores_of(lines)), list(scores_of(parent.lines))
    if not own or not others:
        who = "This run" if not own else "Its parent"
        return f"{who} has no evaluation, so they cannot be compared."
    last = own[-1]
    text = f"{last.step:,} environment steps after the fork, this run has a greedy return of {last.mean:,.1f}."
    before = [score for score in others if score.step <= 0]
    if before:
        text += f" This is {_compared(last, before[-1])} the parent's {before[-1].mean:,.1f} at the fork."
    after = [score for score in others if 0 < score.step <= last.step]
    if after:
        there = after[-1]
        text += (
            f" The parent continued: it had {there.mean:,.1f} at {there.step:,} steps after the fork, and this run is "
            f"{_compared(last, there)} that."
        )
    return text


def draw_fork(axes: Axes, parent: Parent, lines: list[dict[str, Any]], config: Config) -> None:
    """Draws the greedy returns of both runs over environment steps; a dotted line marks the fork."""
    draw_returns(axes, _evaluations(parent.lines), color="0.4", greedy="parent")
    draw_returns(axes, _evaluations(lines), greedy="this run")
    axes.axvline(0, color="0.4", linewidth=0.8, linestyle=":")
    if config.env.solve_return is not None:
        axes.axhline(config.env.solve_return, color="0.4", linestyle="--", linewidth=1)
    axes.set(xlabel="environment steps after the fork (dotted)", ylabel="episode return")
    axes.legend(fontsize="small", loc="best")


def _evaluations(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if math.isfinite(line.get("eval/return_mean", math.nan))]


def _compared(score: Score, other: Score) -> str:
    """The position relative to the other score, as words."""
    if not score.differs(other):
        return "not significantly different from"
    return "above" if score.mean > other.mean else "below"
