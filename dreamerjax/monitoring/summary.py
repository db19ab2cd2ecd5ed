"""A run's summary as text: the outcome, the cost, and useful next commands."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamerjax.command import command

FEWEST_EPISODES = 3  # for a standard deviation
UNFINISHED = {"interrupted": "Interrupted", "under way": "Under way"}  # why a run stopped -> start of its outcome


def final_paragraph(summary: Mapping[str, Any], *, report: Path | None = None) -> str:
    """The outcome of a run, and useful next commands.

    Args:
        summary: the content of `summary.json`.
        report: the report's HTML page, if there is one.

    Returns:
        One paragraph; the remedies of alerts, if there were any; commands. Remedies and commands are indented, one a
        line, after a blank line.
    """
    sentences = [outcome(summary), *time_taken(summary), *_alerts(summary), f"Everything is in {summary['run_dir']}."]
    commands = list(_next_commands(summary, report))
    pad = max(len(purpose) for purpose, _ in commands)
    remedies = list(_remedies(summary))
    lines = [" ".join(sentences), *([""] if remedies else []), *remedies, ""]
    return "\n".join([*lines, *(f"  {purpose:<{pad}}  {what}" for purpose, what in commands)])


def count(number: int, noun: str) -> str:
    """1,800 updates, 1 update."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def outcome(summary: Mapping[str, Any]) -> str:
    """One sentence: solved or not, with the mean return."""
    env, goal = summary["env"], summary.get("solve_return")
    evaluation = summary.get("eval") or {}
    mean = evaluation.get("return_mean")
    if mean is None:
        verdict = {**UNFINISHED, "budget": "The budget is spent"}.get(summary["stopped"], "Finished")
        return f"{verdict}: {env} has not been evaluated yet."
    score = (
        f"a mean return of {mean_and_spread(mean, evaluation['return_std'], evaluation['episodes'])} over "
        f"{count(evaluation['episodes'], 'greedy episode')} "
        f"(from {evaluation['return_min']:,.1f} to {evaluation['return_max']:,.1f})"
    )
    if summary["stopped"] in UNFINISHED:
        return f"{UNFINISHED[summary['stopped']]}: at its last evaluation {env} reached {score}."
    if goal is None:
        return f"Finished: {env} reaches {score}."
    if mean >= goal:
        return f"Solved: {env} reaches {score}; {goal:g} counts as solved."
    if summary["solved"]:
        return f"Solved on the way, but not at the end: {env} reaches {score}; {goal:g} counts as solved."
    return f"Not solved: {env} reaches {score}; {goal:g} would count as solved."


def time_taken(summary: Mapping[str, Any]) -> Iterator[str]:
    """Sentences: when the run solved its task, and how long it took."""
    at = summary.get("solved_at")
    if at is not None and at["env_steps"] < summary["env_steps"]:
        yield f"It was solved after {_cost(at)}."
    compiling = summary.get("compile_seconds")
    aside = f", {in_words(compiling)} of them to compile" if compiling else ""
    yield f"The run took {_cost(summary)}{aside}."


def _alerts(summary: Mapping[str, Any]) -> Iterator[str]:
    alerts = summary.get("alerts")
    if alerts:
        names = ", ".join(dict.fromkeys(alert["name"] for alert in alerts))
        yield f"There {'was an alert' if len(alerts) == 1 else f'were {len(alerts)} alerts'}: {names} (alerts.jsonl)."


def _remedies(summary: Mapping[str, Any]) -> Iterator[str]:
    """Lines: the newest remedy of each kind of alert."""
    for name, remedy in {alert["name"]: alert.get("remedy") for alert in summary.get("alerts") or ()}.items():
        if remedy:
            yield f"  against {name}: {remedy}"


def mean_and_spread(mean: float, std: float, episodes: int) -> str:
    """A mean return, with the standard deviation if there are at least three episodes."""
    return f"{mean:,.1f} ± {std:,.1f}" if episodes >= FEWEST_EPISODES else f"{mean:,.1f}"


def _cost(spent: Mapping[str, Any]) -> str:
    steps, updates = count(spent["env_steps"], "environment step"), count(spent["updates"], "update")
    return f"{steps}, {updates} and {in_words(spent['wall_seconds'])}"


def _next_commands(summary: Mapping[str, Any], report: Path | None) -> Iterator[tuple[str, str]]:
    """Purpose and command; the most likely next step first."""
    folder = shlex.quote(str(summary["run_dir"]))
    if summary["stopped"] == "interrupted":
        yield "resume", f"the same command with --run-dir {folder}"
    elif not summary["solved"]:
        yield "train longer", f"the same command with --run-dir {folder} --env-steps {2 * summary['env_steps']}"
    if report is not None:
        yield "see everything", f"{report}    (in a browser; it needs no network)"
    yield "evaluate it", f"{command()} eval --run-dir {folder} --episodes 100"
    yield "see its dreams", f"{command()} show --run-dir {folder}"
    yield "play in them", f"{command()} play --run-dir {folder}"
    yield "see the curves", f"tensorboard --logdir {folder}    (once: pip install tensorboard)"


def in_words(seconds: float) -> str:
    """58 s, 1 min 58 s, 2 h 1 min."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
