"""Everything that there is to see of a run as one page, `report.html`, which needs no other file and no network."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dreamerjax.command import command
from dreamerjax.config import Config, EnvConfig, flatten, resolve
from dreamerjax.envs import EnvError
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.monitoring.alerts import Alert, Watch
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.monitoring.remedy import words_and_flags
from dreamerjax.monitoring.summary import UNFINISHED, count, in_words, mean_and_spread, outcome, time_taken
from dreamerjax.runs.checkpoint import CheckpointError
from dreamerjax.runs.load import LoadedAgent, load_run, read_settings
from dreamerjax.runs.run_folder import RunFolder, RunFolderError, changed_keys, no_run_folder
from dreamerjax.runtime.sentence import sentence_of
from dreamerjax.viz.curves import draw_returns, finish_returns, return_limits, series, training_in_words
from dreamerjax.viz.exhibits import Exhibit, choose, exhibit
from dreamerjax.viz.film import Filmed, filmed
from dreamerjax.viz.fork import Parent, beside_parent, draw_fork, parent_of
from dreamerjax.viz.health import draw_panel
from dreamerjax.viz.learning import Learning, judge_learning
from dreamerjax.viz.page import Chart, chart, render
from dreamerjax.viz.panels import PANELS, Panel, judge_panel
from dreamerjax.viz.trust import trust_in_dreams
from dreamerjax.viz.verdict import WORDS

TEMPLATE = "report.html.j2"

Lines = list[dict[str, Any]]  # of metrics.jsonl


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run folder, from whatever there is: metrics are enough.

    Args:
        run_dir: the run; it may still be training.

    Returns:
        The file.

    Raises:
        RunFolderError: it is no run folder, it has no metrics, or the page cannot be written.
        ConfigError: its settings are not of this version.
    """
    config = read_settings(run_dir)
    if config is None:
        raise no_run_folder(run_dir)
    lines, notes = _metrics_of(run_dir), dict[str, str]()
    loaded = _agent_of(run_dir, notes)
    summary, learning = _summary_of(run_dir, config, lines), judge_learning(lines, config)
    parent = _parent_of(run_dir, loaded, notes)
    watch = Watch(config)
    alerts = [alert for line in lines for alert in watch.see(line)]
    shown, left_out = choose(filmed(run_dir))
    exhibits = list(_exhibits(shown, notes))
    content = {
        "run": run_dir.resolve().name,
        "folder": str(run_dir),
        "command": command(),
        "summary": summary,
        "verdict": _verdict(summary, learning),
        "words": WORDS,
        "sentences": [outcome(summary), learning.verdict.sentence, *time_taken(summary)],
        "tiles": list(_tiles(summary)),
        "lineage": [event for event in loaded.lineage if event.what != "begun"] if loaded else [],
        "learning": list(_learning(lines, config, parent)),
        "training": training_in_words(lines),
        "episodes": [one for one in exhibits if not one.name.startswith("dream")],
        "dreams": [one for one in exhibits if one.name.startswith("dream") and one.moves],
        "plots": [one for one in exhibits if one.name.startswith("dream") and not one.moves],
        "left_out": [one.file.name for one in left_out],
        "trust": _trust(loaded, notes) if loaded else None,
        "alerts": [
            (alert, watch.standing.get(alert.name) == alert, *words_and_flags(alert.remedy)) for alert in alerts
        ],
        "health": list(_health(lines, config, watch, alerts)),
        "changed": _changed(config),
        "settings": {key: _plainly(value) for key, value in flatten(config).items()},
        "costs": list(_costs(lines, summary)),
        "versions": summary.get("versions", {}),
        "notes": notes,
    }
    file = RunFolder(run_dir).report_path
    try:
        file.write_text(render(TEMPLATE, content), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{file} could not be written: {error.strerror}.") from error
    return file


def _exhibits(films: Sequence[Filmed], notes: dict[str, str]) -> Iterator[Exhibit]:
    """The films and plots that can be read; of others, a note tells why not."""
    for one in films:
        try:
            yield exhibit(one)
        except Exception as error:
            notes["films"] = f"Not all that was filmed can be shown: {sentence_of(error)}"


def _metrics_of(run_dir: Path) -> Lines:
    try:
        lines = read_metrics(RunFolder(run_dir).metrics_path)
    except OSError as error:
        raise RunFolderError(f"{run_dir}/metrics.jsonl cannot be read: {error.strerror}.\nTrain first.") from error
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    if not lines:
        raise RunFolderError(f"{run_dir}/metrics.jsonl is empty: nothing has happened yet.\nTrain first.")
    return lines


def _agent_of(run_dir: Path, notes: dict[str, str]) -> LoadedAgent | None:
    try:
        return load_run(run_dir)
    except (CheckpointError, EnvError) as error:
        notes["trust"] = f"There is no agent to let dream: {error}"
        return None


def _summary_of(run_dir: Path, config: Config, lines: Lines) -> dict[str, Any]:
    """The content of summary.json; what the metrics tell, if the run has not ended or has gone on since."""
    last = lines[-1]
    try:
        summary = json.loads(RunFolder(run_dir).summary_path.read_text(encoding="utf-8"))
        if summary["env_steps"] >= last["step"]:
            return summary
    except (OSError, ValueError, LookupError, TypeError):
        pass
    evaluations = [line for line in lines if "eval/return_mean" in line]
    evaluation = {key.removeprefix("eval/"): value for key, value in evaluations[-1].items()} if evaluations else None
    if evaluation:
        evaluation["episodes"] = int(evaluation["episodes"])
    return {
        "env": config.env.name,
        "stopped": "under way",
        "solved": False,
        "solve_return": config.env.solve_return,
        "eval": evaluation,
        "env_steps": last["step"],
        "updates": last["update"],
        "wall_seconds": last["wall_seconds"],
    }


def _verdict(summary: Mapping[str, Any], learning: Learning) -> str:
    """In a word or three."""
    if summary["stopped"] in UNFINISHED:
        return summary["stopped"]
    if summary["solved"] and learning.word != "solved":
        return "solved on the way"
    has_goal = summary.get("solve_return") is not None
    return "not solved" if has_goal and learning.word in ("learned", "stalled") else learning.word


def _tiles(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Value and label of the numbers that come first."""
    if evaluation := summary.get("eval"):
        value = mean_and_spread(evaluation["return_mean"], evaluation["return_std"], evaluation["episodes"])
        yield value, f"return of {count(evaluation['episodes'], 'greedy episode')}"
    yield f"{summary['env_steps']:,}", "environment steps"
    yield f"{summary['updates']:,}", "updates"
    yield in_words(summary["wall_seconds"]), "wall time"


def _parent_of(run_dir: Path, loaded: LoadedAgent | None, notes: dict[str, str]) -> Parent | None:
    try:
        return parent_of(run_dir, loaded.lineage) if loaded else None
    except FileNotFoundError as error:
        notes["fork"] = str(error)
        return None


def _learning(lines: Lines, config: Config, parent: Parent | None) -> Iterator[Chart]:
    """Returns over steps and over minutes, and beside the parent's; all with the same axis of returns."""
    steps, means = series(lines, "eval/return_mean")
    told = "No evaluation yet."
    if len(means):
        told = f"{means[0]:,.1f} after {steps[0]:,} environment steps, {means[-1]:,.1f} after {steps[-1]:,}."
    goal, limits = (
        config.env.solve_return,
        return_limits([*lines, *(parent.lines if parent else [])], config.env.solve_return),
    )

    def draw(axes: Axes, over: str) -> None:
        draw_returns(axes, lines, training="training", over=over)
        finish_returns(axes, solve_return=goal, over=over)
        axes.set_ylim(limits)
        axes.legend(fontsize="small", loc="best")

    def draw_both(axes: Axes) -> None:
        assert parent is not None
        draw_fork(axes, parent, lines, config)
        axes.set_ylim(limits)

    for over, words in (("step", "environment steps"), ("wall_seconds", "minutes")):
        svg = chart(functools.partial(draw, over=over), f"Greedy return over {words}: {told}")
        yield Chart(f"Return over {words}", svg)
    if parent is not None:
        told = beside_parent(parent, lines)
        yield Chart("Beside its parent", chart(draw_both, f"Greedy returns of this run and its parent. {told}"), told)


def _health(lines: Lines, config: Config, watch: Watch, alerts: Sequence[Alert]) -> Iterator[Chart]:
    """The panels of which something was measured, over the same environment steps."""
    for panel in PANELS:
        newest = {label: series(lines, metric)[1][-1:] for label, metric in panel.metrics.items()}
        if not any(map(len, newest.values())):
            continue  # nothing was measured: no diagnoses, or no evaluations

        def draw(axes: Axes, panel: Panel = panel) -> None:
            draw_panel(axes, lines, panel, alerts)
            axes.set(xlabel="environment steps", xlim=(0, max(1, lines[-1]["step"])))

        told = ", ".join(f"{label} {value[0]:.3g}" for label, value in newest.items() if len(value))
        verdict = judge_panel(panel, lines, config, watch.standing)
        title = panel.title[0].upper() + panel.title[1:]
        svg = chart(draw, f"{panel.title}, at the end: {told}. {WORDS[verdict.level]}: {verdict.sentence}")
        yield Chart(title, svg, verdict.sentence, verdict.level)


def _trust(loaded: LoadedAgent, notes: dict[str, str]) -> Any:
    try:
        trust = trust_in_dreams(Dreamer(loaded))
    except EnvError as error:
        notes["trust"] = f"It takes the environment to compare dreams with: {sentence_of(error)}"
        return None
    except Exception as error:
        notes["trust"] = f"Dreams could not be compared with episodes: {sentence_of(error)}"
        return None
    if trust is None:
        notes["trust"] = "Episodes end too soon to compare dreams with them."
    return trust


def _changed(config: Config) -> dict[str, tuple[str, str]]:
    """Settings that are not the defaults of this environment and this size: key -> (default, here)."""
    model = dataclasses.replace(Config().agent.model, size=config.agent.model.size)
    agent = dataclasses.replace(Config().agent, model=model)
    env = EnvConfig(name=config.env.name, id=config.env.id)
    default = flatten(resolve(Config(env=env, agent=agent))) | {"agent.model.size": Config().agent.model.size}
    changed = changed_keys(default, flatten(config))
    return {key: (_plainly(before), _plainly(here)) for key, (before, here) in changed.items()}


def _costs(lines: Lines, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if device := summary.get("device"):
        yield "device", f"{device}, {summary['backend']}"
    compiling = summary.get("compile_seconds")
    aside = f", {in_words(compiling)} of them to compile" if compiling else ""
    yield "wall time", in_words(summary["wall_seconds"]) + aside
    for key, label in (("env_steps", "environment steps a second"), ("updates", "updates a second")):
        _, speeds = series(lines, f"speed/{key}_per_second")
        lately = f"; {np.median(speeds):,.1f} while it trained, in the median" if len(speeds) else ""
        yield label, f"{summary[key] / max(summary['wall_seconds'], 1e-3):,.1f} over all{lately}"
    _, memory = series(lines, "speed/memory_mb")
    if len(memory):
        yield "memory, at most", f"{np.nanmax(memory):,.0f} MB"
    for key, label in (("git_commit", "git commit"), ("ended", "ended")):
        if summary.get(key):
            yield label, str(summary[key])


def _plainly(value: Any) -> str:
    return "none" if value is None else "empty" if value == "" else str(value)
