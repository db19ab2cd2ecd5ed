"""The health of a run as one picture: its diagnostics over time, with the alerts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from dreamerjax.config import Config
from dreamerjax.host.metrics import read_metrics
from dreamerjax.host.watch import Alert, alerts_of
from dreamerjax.show.curves import series

matplotlib.use("Agg")  # pictures go to files; no window is needed

# Title of each panel -> label and metric of its lines.
PANELS: Mapping[str, Mapping[str, str]] = {
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

# Title of each panel -> what a healthy run shows there.
SOUND: Mapping[str, str] = {
    "greedy return": "It climbs and stays up.",
    "value against what followed": "What the critic expects, and the discounted return that followed, go together. A "
    "value that rises alone says that dreams are better than the world.",
    "world model's loss": "About the same on the newest rows as on all. Far above, the policy is where the model does "
    "not know its way yet.",
    "KL by imagined steps, nats": "How much seeing corrects a dream. It grows with the steps; large after one, the "
    "prior has not learned.",
    "prior and posterior agree, share of groups": "What is dreamed and what is seen have the same most likely class. "
    "Near one half, the prior does not follow.",
    "probability to go on": "Predicted and real agree to a few hundredths.",
    "gradient norms": "None goes to zero; the prior's least of all.",
    "policy's entropy, share of the most": "It falls as the policy makes up its mind. Near zero early, it has stopped "
    "exploring.",
}

# Name of each alert of `host/watch.py` -> what to do. docs/research.md says what was seen.
REMEDIES: Mapping[str, str] = {
    "not a number": "Smaller learning rates; look at the rewards and observations that came before.",
    "prior receives no gradient": "Lower agent.world_model.free_nats, or let the gradient pass with "
    "free_nats_gradient straight_through.",
    "latents collapsed": "The KL is weighed too high: dynamics_scale 1 and representation_scale 0.1 are published; or "
    "raise reconstruction_scale.",
    "entropy collapsed": "A smaller actor learning rate, a larger agent.actor.entropy_scale.",
    "collector starved": "More of env.copies, a smaller train.batch_size; replay.storage memory.",
    "replay frozen": "A fault of the program: nothing that is learned from here on comes from what the agent does.",
    "continue head is wrong": "Look at the targets: is_terminal, time limits that are called terminal, cont_scale.",
    "dreams end too soon": "The prior, if dream_kl_h1 is large; else the continue head.",
    "rewards are shifted": "A reward is stored one step off; row t holds the reward of arriving at step t.",
    "world model lags behind": "train.pacing surprise, a smaller actor learning rate.",
    "delusional dreaming": "More updates of the world model, a shorter imagination_horizon, a smaller actor learning "
    "rate.",
}


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
    for axes, title in zip(panels.flat, PANELS, strict=True):
        draw_panel(axes, lines, title, alerts)
        axes.set_title(title, fontsize="small", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("environment steps")
    marks = "; ".join(f"{alert.name} at {alert.step:,}" for alert in alerts) or "no alerts"
    figure.suptitle(marks, fontsize="medium", color="C3" if alerts else "0.3", wrap=True)
    figure.savefig(file, dpi=110)
    return alerts


def draw_panel(axes: Axes, lines: list[dict[str, Any]], title: str, alerts: Sequence[Alert] = ()) -> None:
    """Draws one of `PANELS` over environment steps; alerts are red lines.

    Args:
        axes: where to draw.
        lines: of `read_metrics`.
        title: of the panel.
        alerts: of the run.
    """
    for label, metric in PANELS[title].items():
        axes.plot(*series(lines, metric), label=label, linewidth=1.4)
    if len(PANELS[title]) > 1:
        axes.legend(frameon=False, fontsize="small", ncols=3)
    if title in LOGARITHMIC:
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    for alert in alerts:
        axes.axvline(alert.step, color="C3", linewidth=0.8, linestyle=":")
