"""The health of a run as one picture: its diagnostics over time, with the alerts."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamerjax.config import Config
from dreamerjax.host.metrics import read_metrics
from dreamerjax.host.watch import Alert, alerts_of

matplotlib.use("Agg")  # pictures go to files; no window is needed

# Title of each panel -> label and metric of its lines.
PANELS = {
    "greedy return": {"return": "eval/return_mean"},
    "value against what followed": {"value": "diagnosis/value_mean", "followed": "diagnosis/value_return"},
    "world model's loss": {
        "newest rows": "diagnosis/world_model_loss_newest",
        "all rows": "diagnosis/world_model_loss_replay",
    },
    "KL by imagined steps, nats": {
        "1": "diagnosis/dream_kl_h1",
        "3": "diagnosis/dream_kl_h3",
        "15": "diagnosis/dream_kl_h15",
    },
    "prior and posterior agree, share of groups": {"same class": "diagnosis/prior_agreement"},
    "probability to go on": {
        "predicted": "diagnosis/cont_predicted",
        "real": "diagnosis/cont_real",
        "dreams after 15": "diagnosis/dream_survival_h15",
    },
    "gradient norms": {name: f"train/grad_norm/{name}" for name in ("prior", "posterior", "encoder", "decoder", "gru")},
    "policy's entropy, share of the most": {"entropy": "train/actor_entropy_share"},
}
LOGARITHMIC = ("world model's loss", "gradient norms")
COLUMNS = 2


def draw_health(run_dir: Path, config: Config, file: Path) -> list[Alert]:
    """Draws the diagnostics of a run.

    Args:
        run_dir: the run; it may still be training.
        config: its settings, for the thresholds.
        file: the PNG to write.

    Returns:
        The alerts, which the picture marks with red lines.

    Raises:
        OSError: the metrics cannot be read, or the picture cannot be written.
    """
    lines = read_metrics(run_dir / "metrics.jsonl")
    alerts = alerts_of(lines, config)
    rows = -(-len(PANELS) // COLUMNS)
    figure = Figure(figsize=(10, 2.1 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharex=True)
    for axes, (title, named) in zip(panels.flat, PANELS.items(), strict=True):
        _draw_panel(axes, lines, named)
        axes.set_title(title, fontsize="small", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        if title in LOGARITHMIC:
            axes.set_yscale("log", nonpositive="mask")
        for alert in alerts:
            axes.axvline(alert.step, color="C3", linewidth=0.8, linestyle=":")
    for axes in panels[-1]:
        axes.set_xlabel("environment steps")
    marks = "; ".join(f"{alert.name} at {alert.step:,}" for alert in alerts) or "no alerts"
    figure.suptitle(marks, fontsize="medium", color="C3" if alerts else "0.3", wrap=True)
    figure.savefig(file, dpi=110)
    return alerts


def _draw_panel(axes: Axes, lines: list[dict], named: dict[str, str]) -> None:
    for label, metric in named.items():
        points = np.array([(line["step"], line[metric]) for line in lines if metric in line]).reshape(-1, 2)
        axes.plot(points[:, 0], points[:, 1], label=label, linewidth=1.4)
    if len(named) > 1:
        axes.legend(frameon=False, fontsize="x-small", ncols=3)
