"""Plants faults one by one and checks that the right alert appears; five healthy seeds must raise none.

    python experiments/planted_faults.py [--jobs 2]

About a minute per run on one core. Exit code 1 if a fault raised no matching alert or a healthy run raised any.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from dreamerjax.monitoring.alerts import alerts_of
from dreamerjax.monitoring.metrics import read_metrics
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runs.settings import Layer, combine
from dreamerjax.study.jobs import Job, run_jobs, summary_of

VARIANTS = "experiments/variants.py"
BUDGET: Layer = {
    "train.env_steps": 5000,
    "train.stop_when_solved": False,
    "eval.every": 500,
    "eval.final_episodes": 20,
    "log.video_every": 0,
    "log.tensorboard": False,
    "log.report": False,
}
# fault -> environment, settings, variant of the code, the expected alert
FAULTS: dict[str, tuple[str, Layer, str, str]] = {
    "prior's gradient cut": ("cartpole", {}, "prior_without_gradient", "prior receives no gradient"),
    "KL ten times too heavy": (
        "cartpole",
        {"agent.world_model.dynamics_scale": 10.0, "agent.world_model.representation_scale": 1.0},
        "",
        "latents collapsed",
    ),
    "representation loss alone, ten times": (
        "cartpole",
        {"agent.world_model.representation_scale": 1.0},
        "",
        "latents collapsed",
    ),
    "continue head says 0.5": ("cartpole", {}, "cont_head_says_half", "continue head is wrong"),
    # In Pendulum, because CartPole's reward is always 1: a shift shows only in the first rows of episodes.
    "reward a step late": ("gym:Pendulum-v1", {"train.env_steps": 4000}, "reward_one_step_late", "rewards are shifted"),
    "actor's learning rate x 30": ("cartpole", {"agent.actor.learning_rate": 1.2e-2}, "", "entropy collapsed"),
    "replay frozen": ("cartpole", {}, "replay_frozen", "replay frozen"),
}
SEEDS = 5


def main() -> int:
    """Runs what is missing, and prints which alert appeared when."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel (default: 1)")
    given = parser.parse_args()
    expected: dict[Job, tuple[str, str]] = {}
    for fault, (env, layer, variant, alert) in FAULTS.items():
        config = combine([*read_env(env), BUDGET, layer])
        expected[Job(config, f"{VARIANTS}:{variant}" if variant else "")] = (fault, alert)
    healthy = combine([*read_env("cartpole"), BUDGET])
    for seed in range(SEEDS):
        expected[Job(dataclasses.replace(healthy, seed=seed))] = (f"none, seed {seed}", "")
    pendulum = combine([*read_env("gym:Pendulum-v1"), BUDGET, {"train.env_steps": 4000}])
    expected[Job(pendulum)] = ("none, Pendulum", "")

    run_jobs(list(expected), at_once=given.jobs, say=print)
    table = Table("fault", "raised", "at step", "seconds", "all alerts")
    wrong = 0
    for job, (fault, wanted) in expected.items():
        lines, summary = read_metrics(RunFolder(job.folder).metrics_path), summary_of(job)
        assert summary is not None, "the run has finished"
        alerts = alerts_of(lines, job.config)
        first = next((alert for alert in alerts if alert.name == wanted), None)
        right = first is not None if wanted else not alerts
        wrong += not right
        then = "" if first is None else f"{first.step:,}"
        names = ", ".join(dict.fromkeys(alert.name for alert in alerts))
        table.add_row(fault, "yes" if right else "NO", then, f"{summary['wall_seconds']:.0f}", names)
    Console(width=140).print(table)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
