"""Writes the report of a run: one self-contained page, `report.html`."""

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
from dreamerjax.runtime.error_text import one_line
from dreamerjax.viz.curves import draw_returns, finish_returns, return_limits, series, training_caption
from dreamerjax.viz.dream_accuracy import measure_dream_accuracy
from dreamerjax.viz.film import Filmed, filmed
from dreamerjax.viz.fork import Parent, draw_fork, parent_comparison, parent_of
from dreamerjax.viz.health import draw_panel
from dreamerjax.viz.learning import Learning, judge_learning
from dreamerjax.viz.page import Chart, chart, render
from dreamerjax.viz.panels import PANELS, Panel, judge_panel
from dreamerjax.viz.report_media import Media, read_media, select_media
from dreamerjax.viz.verdict import WORDS

TEMPLATE = "report.html.j2"

Lines = list[dict[str, Any]]  # of metrics.jsonl


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run folder. Only the metrics are required; other parts are left out if missing.

    Args:
        run_dir: the run; it may still be training.

    Returns:
        The file.

    Raises:
        RunFolderError: it is no run folder, it has no metrics, or the page cannot be written.
        ConfigError: its settings are from another version.
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
    shown, left_out = select_media(filmed(run_dir))
    media = list(_readable(shown, notes))
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
        "training": training_caption(lines),
        "episodes": [one for one in media if not one.name.startswith("dream")],
        "dreams": [one for one in media if one.name.startswith("dream") and one.is_film],
        "plots": [one for one in media if one.name.startswith("dream") and not one.is_film],
        "left_out": [one.file.name for one in left_out],
        "accuracy": _accuracy(loaded, notes) if loaded else None,
        "alerts": [(alert, watch.active.get(alert.name) == alert, *words_and_flags(alert.remedy)) for alert in alerts],
        "diagnostics": list(_diagnostics(lines, config, watch, alerts)),
        "changed": _changed(config),
        "settings": {key: _as_text(value) for key, value in flatten(config).items()},
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


def _readable(films: Sequence[Filmed], notes: dict[str, str]) -> Iterator[Media]:
    """The films and plots that can be read; adds a note about others."""
    for one in films:
        try:
            yield read_media(one)
        except Exception as error:
            notes["films"] = f"Some films cannot be shown: {one_line(error)}"


def _metrics_of(run_dir: Path) -> Lines:
    try:
        lines = read_metrics(RunFolder(run_dir).metrics_path)
    except OSError as error:
        raise RunFolderError(
            f"{run_dir}/metrics.jsonl cannot be read: {error.strerror}.\nTrain the run first."
        ) from error
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    if not lines:
        raise RunFolderError(f"{run_dir}/metrics.jsonl is empty.\nTrain the run first.")
    return lines


def _agent_of(run_dir: Path, notes: dict[str, str]) -> LoadedAgent | None:
    try:
        return load_run(run_dir)
    except (CheckpointError, EnvError) as error:
        notes["accuracy"] = f"The agent cannot be loaded: {error}"
        return None


def _summary_of(run_dir: Path, config: Config, lines: Lines) -> dict[str, Any]:
    """The content of summary.json; made from the metrics if the run is unfinished or was resumed since."""
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
    """The verdict on the run in a few words."""
    if summary["stopped"] in UNFINISHED:
        return summary["stopped"]
    if summary["solved"] and learning.word != "solved":
        return "solved earlier"
    has_goal = summary.get("solve_return") is not None
    return "not solved" if has_goal and learning.word in ("learned", "stalled") else learning.word


def _tiles(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Value and label of the numbers at the top of the page."""
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
    """Charts of returns over steps, over minutes, and with the parent's; all with the same return axis."""
    steps, means = series(lines, "eval/return_mean")
    text = "No evaluation yet."
    if len(means):
        text = f"{means[0]:,.1f} after {steps[0]:,} environment steps, {means[-1]:,.1f} after {steps[-1]:,}."
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
        svg = chart(functools.partial(draw, over=over), f"Greedy return over {words}: {text}")
        yield Chart(f"Return over {words}", svg)
    if parent is not None:
        text = parent_comparison(parent, lines)
        yield Chart(
            "Comparison with the parent run",
            chart(draw_both, f"Greedy returns of this run and its parent. {text}"),
            text,
        )


def _diagnostics(lines: Lines, config: Config, watch: Watch, alerts: Sequence[Alert]) -> Iterator[Chart]:
    """The panels that have data, over the same environment steps."""
    for panel in PANELS:
        newest = {label: series(lines, metric)[1][-1:] for label, metric in panel.metrics.items()}
        if not any(map(len, newest.values())):
            continue  # no diagnoses or evaluations

        def draw(axes: Axes, panel: Panel = panel) -> None:
            draw_panel(axes, lines, panel, alerts)
            axes.set(xlabel="environment steps", xlim=(0, max(1, lines[-1]["step"])))

        text = ", ".join(f"{label} {value[0]:.3g}" for label, value in newest.items() if len(value))
        verdict = judge_panel(panel, lines, config, watch.active)
        title = panel.title[0].upper() + panel.title[1:]
        svg = chart(draw, f"{panel.title}, last values: {text}. {WORDS[verdict.level]}: {verdict.sentence}")
        yield Chart(title, svg, verdict.sentence, verdict.level)


def _accuracy(loaded: LoadedAgent, notes: dict[str, str]) -> Any:
    try:
        accuracy = measure_dream_accuracy(Dreamer(loaded))
    except EnvError as error:
        notes["accuracy"] = f"The comparison of dreams with episodes needs the environment: {one_line(error)}"
        return None
    except Exception as error:
        notes["accuracy"] = f"Dreams could not be compared with episodes: {one_line(error)}"
        return None
    if accuracy is None:
        notes["accuracy"] = "The episodes are too short to compare dreams with them."
    return accuracy


def _changed(config: Config) -> dict[str, tuple[str, str]]:
    """Settings that differ from the defaults of this environment and size: key -> (default, value)."""
    model = dataclasses.replace(Config().agent.model, size=config.agent.model.size)
    agent = dataclasses.replace(Config().agent, model=model)
    env = EnvConfig(name=config.env.name, id=config.env.id)
    default = flatten(resolve(Config(env=env, agent=agent))) | {"agent.model.size": Config().agent.model.size}
    changed = changed_keys(default, flatten(config))
    return {key: (_as_text(before), _as_text(here)) for key, (before, here) in changed.items()}


def _costs(lines: Lines, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if device := summary.get("device"):
        yield "device", f"{device}, {summary['backend']}"
    compiling = summary.get("compile_seconds")
    aside = f", including {in_words(compiling)} of compilation" if compiling else ""
    yield "wall time", in_words(summary["wall_seconds"]) + aside
    for key, label in (("env_steps", "environment steps per second"), ("updates", "updates per second")):
        _, speeds = series(lines, f"speed/{key}_per_second")
        median = f"; median while training {np.median(speeds):,.1f}" if len(speeds) else ""
        yield label, f"{summary[key] / max(summary['wall_seconds'], 1e-3):,.1f} over the whole run{median}"
    _, memory = series(lines, "speed/memory_mb")
    if len(memory):
        yield "peak memory", f"{np.nanmax(memory):,.0f} MB"
    for key, label in (("git_commit", "git commit"), ("ended", "ended")):
        if summary.get(key):
            yield label, str(summary[key])


def _as_text(value: Any) -> str:
    return "none" if value is None else "empty" if value == "" else str(value)
