"""Draws a healthy run and four runs with planted faults: docs/images/sick_runs.png.

    python experiments/sick_runs.py [--jobs 2] [--out docs/images/sick_runs.png]

The runs are a selection from planted_faults.py, a minute each on one core; finished runs are not repeated.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from dreamerjax.monitoring.alerts import alerts_of
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runs.settings import combine
from dreamerjax.study.jobs import Job, run_jobs
from dreamerjax.viz.curves import series
from experiments.planted_faults import BUDGET, FAULTS, VARIANTS

matplotlib.use("Agg")

SHOWN = ("KL ten times too heavy", "actor's learning rate x 30", "continue head says 0.5", "replay frozen")
# title -> metrics with their colours; the upper limit
ROWS: dict[str, tuple[dict[str, str], float | None]] = {
    "greedy return": ({"eval/return_mean": "C0"}, 520),
    "entropy of the policy\n(share of the most)": ({"train/actor_entropy_share": "C0"}, 1.05),
    "KL of posterior\nand prior (nats)": ({"train/kl": "C0"}, None),
    "entropy of the\nposterior (nats)": ({"train/posterior_entropy": "C0"}, None),
    "dreams that go on\nafter 3 steps (share)": ({"diagnosis/dream_survival_h3": "C0"}, 1.05),
    "value (blue), and the return\nthat followed (black)": (
        {"diagnosis/value_mean": "C0", "diagnosis/value_return": "black"},
        None,
    ),
}


def main() -> int:
    """Runs what is missing, and draws a column for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("docs/images/sick_runs.png"), help="the image file")
    given = parser.parse_args()
    columns = {"healthy": Job(combine([*read_env("cartpole"), BUDGET]))}
    for fault in SHOWN:
        env, layer, variant, _ = FAULTS[fault]
        columns[fault] = Job(combine([*read_env(env), BUDGET, layer]), f"{VARIANTS}:{variant}" if variant else "")
    run_jobs(list(columns.values()), at_once=given.jobs, say=print)

    figure = Figure(figsize=(2.5 * len(columns), 1.6 * len(ROWS)), layout="constrained")
    grid = figure.subplots(len(ROWS), len(columns), sharex=True, sharey="row")
    for column, (name, job) in zip(grid.T, columns.items(), strict=True):
        lines = read_metrics(RunFolder(job.folder).metrics_path)
        first = {alert.name: alert.step for alert in reversed(alerts_of(lines, job.config))}
        for axes, (title, (metrics, _)) in zip(column, ROWS.items(), strict=True):
            for metric, colour in metrics.items():
                axes.plot(*series(lines, metric), color=colour, linewidth=1.5)
            for step in first.values():
                axes.axvline(step, color="C3", linewidth=0.9, linestyle=":")
            axes.spines[["top", "right"]].set_visible(False)
            if axes in grid[:, 0]:
                axes.set_ylabel(title, fontsize="small")
        alerts = "\n".join(f"{alert}, {step:,}" for alert, step in first.items()) or "no alert"
        column[0].set_title(f"{name}\n\n", fontsize="medium")
        column[0].text(
            0, 1.02, alerts, transform=column[0].transAxes, fontsize="x-small", color="C3" if first else "C2"
        )
        column[-1].set_xlabel("environment steps", fontsize="small")
    for axes, (_, highest) in zip(grid[:, 0], ROWS.values(), strict=True):  # shared by the whole row
        axes.set_ylim(0, highest)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.out, dpi=110)
    print(f"Written: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
