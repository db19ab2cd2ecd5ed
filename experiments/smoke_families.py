"""A short training of one family of environments, with a model that learns nothing: it must run, end and be resumed.

    python experiments/smoke_families.py dmc

The family's package must be installed; `make test-envs` does that for all of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 2000
ENVS = {
    "atari": ["atari:breakout", "atari100k:boxing"],
    "box2d": ["gym:LunarLander-v3"],
    "brax": ["brax:inverted_pendulum"],
    "bsuite": ["bsuite:catch/0"],
    "craftax": ["craftax:Craftax-Classic-Symbolic-v1"],
    "crafter": ["crafter:reward"],
    "dmc": ["dmc:cartpole-swingup", "dmc:cartpole-swingup --obs pixels"],
    "gymnax": ["gymnax:CartPole-v1"],
    "memory-maze": ["memory-maze:9x9"],
    "minigrid": ["minigrid:MiniGrid-Empty-5x5-v0", "minigrid:MiniGrid-Empty-5x5-v0 --obs pixels"],
    "mujoco": ["gym:InvertedPendulum-v5"],
    "popgym": ["popgym:RepeatPreviousEasy"],
}
FLAGS = """
    --size=300k --agent.model.deter=16 --agent.model.hidden=8 --agent.model.groups=4 --agent.model.classes=4
    --agent.model.depth=2 --agent.model.bins=31 --agent.returns.imagination-horizon=3 --agent.precision=float32
    --env.copies=2 --train.prefill=200 --train-ratio=4 --train.batch-size=2 --train.sequence-length=8
    --replay.capacity=3000 --eval.every=1000 --eval.episodes=1 --eval.final-episodes=2 --eval.copies=2
    --log.video-every=0 --no-log.tensorboard --no-log.report --backend=cpu
"""


def smoke(env: str) -> None:
    """Trains, looks at what came of it, and goes on."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        for steps in (STEPS, STEPS + 200):
            command = [sys.executable, str(ROOT / "run.py"), "--env", *env.split(), f"--run-dir={run}"]
            subprocess.run([*command, f"--env-steps={steps}", *FLAGS.split()], cwd=ROOT, check=True)
            summary = json.loads((run / "summary.json").read_text())
            if summary["env_steps"] < steps:
                sys.exit(f"{env}: {summary['env_steps']} steps were made, expected {steps}.")
        print(f"{env}: trained, evaluated and resumed; mean return {summary['eval']['return_mean']:.3g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="+", choices=ENVS)
    for family in parser.parse_args().families:
        for env_id in ENVS[family]:
            smoke(env_id)
