"""Draws the diagnostics of a run over time, with verdicts and alerts, as one image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from dreamerjax.config import Config
from dreamerjax.monitoring.alerts import Alert, Watch
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.viz.curves import series
from dreamerjax.viz.panels import PANELS, Panel, judge_panel
from dreamerjax.viz.verdict import WORDS

matplotlib.use("Agg")  # draw to files, without a display

COLUMNS = 2
COLOURS = {"ok": "C2", "warning": "C3", "unclear": "0.4"}


def draw_health(run_dir: Path, config: Config, file: Path) -> list[Alert]:
    """Draws the diagnostics of a run.

    Args:
        run_dir: the run; it may still be training.
        config: its settings, for the thresholds.
        file: the PNG to write.

    Returns:
        The alerts, drawn as red lines.

    Raises:
        OSError: the metrics cannot be read, or the image cannot be written.
    """
    lines, watch = read_metrics(RunFolder(run_dir).metrics_path), Watch(config)
    alerts = [alert for line in lines for alert in watch.see(line)]
    rows = -(-len(PANELS) // COLUMNS)
    figure = Figure(figsize=(10, 2.1 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharex=True)
    used, spare = grid.flat[: len(PANELS)], grid.flat[len(PANELS) :]
    for axes in spare:
        axes.remove()
    for axes, panel in zip(used, PANELS, strict=True):
        draw_panel(axes, lines, panel, alerts)
        level = judge_panel(panel, lines, config, watch.active).level
        axes.set_title(panel.title, fontsize="small", loc="left")
        axes.set_title(WORDS[level].lower(), fontsize="small", loc="right", color=COLOURS[level])
        axes.spines[["top", "right"]].set_visible(False)
    for axes in used[-COLUMNS:]:  # the lowest of each column
        axes.set_xlabel("environment steps")
        axes.tick_params(labelbottom=True)
    marks = "; ".join(f"{alert.name} at {alert.step:,}" for alert in alerts) or "no alerts"
    figure.suptitle(marks, fontsize="medium", color="C3" if alerts else "0.3", wrap=True)
    figure.savefig(file, dpi=110)
    return alerts


def draw_panel(axes: Axes, lines: list[dict[str, Any]], panel: Panel, alerts: Sequence[Alert] = ()) -> None:
    """Draws the metrics of one panel over environment steps; alerts are red lines.

    Args:
        axes: where to draw.
        lines: of `read_metrics`.
        panel: one of `PANELS`.
        alerts: of the run.
    """
    for label, metric in panel.metrics.items():
        at, values = series(lines, metric)
        if len(at):
            axes.plot(at, values, label=label, linewidth=1.4, marker="." if len(at) == 1 else "")
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize="small", ncols=3, loc="upper right")
    if panel.share:
        axes.set_ylim(-0.02, 1.05)
    if panel.logarithmic:
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    for alert in alerts:
        axes.axvline(alert.step, color="C3", linewidth=0.8, linestyle=":")
