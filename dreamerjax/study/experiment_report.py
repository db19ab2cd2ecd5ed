"""Writes the report of an experiment: REPORT.md, curves.png, result.json, and one entry in the log."""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamerjax.study.experiment import CURVE, Arm, Curve, Result, write_json
from dreamerjax.study.run_metrics import describe_metric, format_number
from dreamerjax.study.statistics import CONFIDENCE, Interval, interval_in_words, too_few_seeds

matplotlib.use("Agg")  # draw to files, without a display

TABLE_ROWS = 10
COLOURS = {"baseline": "0.35", "change": "C1"}


def write_experiment_report(result: Result, folder: Path) -> Path:
    """Writes the report of an experiment into its folder.

    Returns:
        REPORT.md.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw(result, folder / "curves.png")
    write_json(result, folder / "result.json")
    file = folder / "REPORT.md"
    file.write_text("\n".join(_lines(result)) + "\n", encoding="utf-8")
    return file


def append_log(result: Result, log: Path) -> bool:
    """Adds one entry to the log, unless the log has the same entry already.

    Returns:
        Whether an entry was added.
    """
    numbers = "; ".join(
        f"{arm.name} {', '.join(format_number(x) for x in arm.outcomes)}" for arm in (result.baseline, result.change)
    )
    entry = (
        f"**{result.hypothesis.sentence}** {verdict_sentence(result)} By seed, `{result.hypothesis.metric}`: {numbers}."
        f" (`experiments/hypotheses/{result.hypothesis.name}.yaml`)\n"
    )
    before = log.read_text(encoding="utf-8") if log.exists() else "# Log\n"
    if entry in before:
        return False
    heading = f"## {datetime.date.today()}: experiment {result.hypothesis.name}: {result.judgement.word}\n"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{before.rstrip()}\n\n{heading}\n{entry}", encoding="utf-8")
    return True


def verdict_sentence(result: Result) -> str:
    """The verdict with its numbers in one or two sentences."""
    j, h = result.judgement, result.hypothesis
    base, change = (format_number(float(np.mean(arm.outcomes))) for arm in (result.baseline, result.change))
    few = too_few_seeds(len(h.seeds))
    interval = "" if few else f", {CONFIDENCE:.0%} from {format_number(j.effect.low)} to {format_number(j.effect.high)}"
    text = (
        f"{j.word.capitalize()}: {h.metric} is {change} against {base} "
        f"(difference {format_number(j.effect.estimate)}{interval}; expected: {h.expect}; {len(h.seeds)} seeds)."
    )
    if few:
        text += f" {few}"
        text += f" Add at least {j.more_seeds} to each arm." if j.more_seeds else ""
    elif j.word == "inconclusive":
        more = "more than a thousand seeds" if j.more_seeds is None else f"about {j.more_seeds} more seeds of each arm"
        text += f" With this spread, a verdict needs {more}."
    return text


def draw(result: Result, file: Path) -> None:
    """Draws the curves of both arms: the mean over the seeds, the range from the lowest to the highest, each seed."""
    names = [name for name in (CURVE, *result.hypothesis.shown) if name in result.baseline.curves][:4]
    figure = Figure(figsize=(7.5, 0.6 + 2.5 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for arm in (result.baseline, result.change):
            if name in arm.curves:
                draw_curve(axes, arm.curves[name], label=arm.name, colour=COLOURS[arm.name])
        axes.set_ylabel("greedy return" if name == CURVE else name, fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    goal = result.hypothesis.baseline.env.solve_return
    if goal is not None:
        panels[0].axhline(goal, color="0.6", linestyle="--", linewidth=1, label=f"solved: {goal:g}")
    panels[0].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    panels[-1].set_xlabel("environment steps")
    figure.suptitle(f"{result.hypothesis.name}: {result.judgement.word}", fontsize="medium")
    figure.savefig(file, dpi=110)


def draw_curve(axes: Axes, curve: Curve, *, label: str, colour: str) -> None:
    """Draws the mean over the seeds, the band from the lowest to the highest seed, and each seed as a thin line."""
    axes.fill_between(curve.steps, curve.values.min(0), curve.values.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.plot(curve.steps, curve.values.T, color=colour, alpha=0.35, linewidth=0.7)
    axes.plot(curve.steps, curve.values.mean(0), color=colour, linewidth=2, label=label)
    axes.margins(x=0.01)


def _lines(result: Result) -> Iterator[str]:
    h, j = result.hypothesis, result.judgement
    yield f"# {h.name}: {j.word}"
    yield f"\n> {h.sentence}\n"
    yield verdict_sentence(result)
    if h.note:
        yield f"\n{h.note}"
    yield "\n## Change\n"
    yield "| setting | baseline | change |"
    yield "|---|---|---|"
    for key, (there, here) in result.differing.items():
        yield f"| `{key}` | {there} | {here} |"
    start = f"from {h.start}" if h.start else "from scratch"
    yield (
        f"\nEnvironment `{h.baseline.env.name}`, {start}, {h.baseline.train.env_steps:,} environment steps, seeds "
        f"{', '.join(map(str, h.seeds))}. All other settings are the same."
    )
    yield "\n## Learning curves\n"
    yield "![Curves of baseline and change](curves.png)\n"
    yield from _table(result.baseline, result.change)
    yield f"\n## Metric: `{h.metric}`\n"
    metric = describe_metric(h.metric)
    yield f"{metric[:1].upper()}{metric[1:]}. Expected from the change: {h.expect}.\n"
    yield "| | by seed | interquartile mean [95% bootstrap] |"
    yield "|---|---|---|"
    for arm in (result.baseline, result.change):
        yield f"| {arm.name} | {', '.join(format_number(x) for x in arm.outcomes)} | {_interval(arm.middle, h.seeds)} |"
    yield (
        f"\nDifference of the means, with Welch's 95% interval: {_interval(j.effect, h.seeds)}. Probability that the "
        f"metric of a run of the change is higher: {_interval(result.improvement, h.seeds)}."
    )
    others = [name for name in h.shown if name in result.baseline.curves or name in result.change.curves]
    if others:
        yield "\n## Other metrics (without a verdict)\n"
        yield "Mean over the second half of the runs and over the seeds (lowest to highest seed).\n"
        yield "| | baseline | change |"
        yield "|---|---|---|"
        for name in others:
            yield f"| `{name}` | {_late(result.baseline, name)} | {_late(result.change, name)} |"
    yield "\n## Alerts\n"
    for arm in (result.baseline, result.change):
        named = ", ".join(f"*{name}* in {runs} of {len(h.seeds)} runs" for name, runs in arm.alerts.items())
        yield f"- {arm.name}: {named or 'none'}"
    yield "\n## Cost\n"
    yield "| | environment steps | updates | seconds | commit |"
    yield "|---|---|---|---|---|"
    for arm in (result.baseline, result.change):
        cost = arm.cost
        yield (
            f"| {arm.name} | {cost['env_steps']:,.0f} | {cost['updates']:,.0f} | {cost['wall_seconds']:,.0f} | "
            f"{', '.join(arm.commits)} |"
        )
    yield f"\nMeans over the seeds, on {result.baseline.device}."
    yield "\n## Runs\n"
    for arm in (result.baseline, result.change):
        yield f"- {arm.name}: {', '.join(f'`{folder}`' for folder in arm.folders)}"


def _table(baseline: Arm, change: Arm) -> Iterator[str]:
    """Greedy return by environment steps: the mean over the seeds, with the lowest and the highest."""
    there, here = baseline.curves[CURVE], change.curves[CURVE]
    steps = np.intersect1d(there.steps, here.steps)
    yield "| environment steps | baseline | change |"
    yield "|---|---|---|"
    for step in steps[np.unique(np.linspace(0, len(steps) - 1, TABLE_ROWS).round().astype(int))]:
        cells = (_spread(curve.values[:, curve.steps == step]) for curve in (there, here))
        yield f"| {step:,.0f} | {' | '.join(cells)} |"


def _late(arm: Arm, name: str) -> str:
    if name not in arm.curves:
        return "-"
    curve = arm.curves[name]
    return _spread(curve.values[:, curve.steps >= curve.steps[-1] / 2].mean(1))


def _spread(values: np.ndarray) -> str:
    return f"{format_number(values.mean())} ({format_number(values.min())} to {format_number(values.max())})"


def _interval(interval: Interval, seeds: Sequence[int]) -> str:
    return interval_in_words(interval, len(seeds), number=format_number)
