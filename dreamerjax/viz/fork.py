"""A run beside the one that it was forked from: what each made of the same beginning."""

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
    """The run that another one was forked from."""

    folder: Path
    lines: list[dict[str, Any]]  # of its metrics.jsonl; its steps count from the fork
    forked_at: int  # environment steps of the parent


def parent_of(run_dir: Path, lineage: Sequence[Event]) -> Parent | None:
    """The parent of a run, as far as its folder is there; None if the run is no fork.

    Args:
        run_dir: the run.
        lineage: of its newest checkpoint.

    Raises:
        FileNotFoundError: it is a fork, and its parent is nowhere to be found; the message is a sentence.
    """
    forks = [event for event in lineage if event.what == "forked"]
    if not forks or forks[-1].parent is None:
        return None
    named = Path(forks[-1].parent)
    for folder in (named, run_dir.resolve().parent / named.name):  # both may have been moved together
        try:
            lines = read_metrics(RunFolder(folder).metrics_path)
        except (OSError, ValueError):
            continue
        at = forks[-1].step
        return Parent(folder, [line | {"step": line["step"] - at} for line in lines], at)
    raise FileNotFoundError(
        f"It was forked from {named}, which is not there any more: there is nothing to compare with."
    )


def beside_parent(parent: Parent, lines: Lines) -> str:
    """Which of the two got further, in words: against the parent at the fork, and as many steps later, if it went on.

    Args:
        parent: of `parent_of`.
        lines: of the fork itself.
    """
    own, others = list(scores_of(lines)), list(scores_of(parent.lines))
    if not own or not others:
        who = "This run" if not own else "Its parent"
        return f"{who} has not been evaluated: there is nothing to compare."
    last = own[-1]
    told = f"After {last.step:,} environment steps of its own this run has a greedy return of {last.mean:,.1f}."
    before = [score for score in others if score.step <= 0]
    if before:
        told += f" That is {_compared(last, before[-1])} the {before[-1].mean:,.1f} that its parent had at the fork."
    after = [score for score in others if 0 < score.step <= last.step]
    if after:
        there = after[-1]
        told += (
            f" The parent went on: {there.step:,} steps after the fork it had {there.mean:,.1f}, and this run is "
            f"{_compared(last, there)} that."
        )
    return told


def draw_fork(axes: Axes, parent: Parent, lines: list[dict[str, Any]], config: Config) -> None:
    """Draws the greedy returns of both over environment steps after the fork, marked with a dotted line."""
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
    """Above, below, or within chance of the other."""
    if not score.differs(other):
        return "within chance of"
    return "above" if score.mean > other.mean else "below"
