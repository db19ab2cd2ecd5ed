"""Smoke test of a suite of environments: random and constant actions, then a short training that is resumed.

    python experiments/smoke_suites.py dmc

First, it steps the examples of docs/environments.md with random actions and with constant ones: no step may fail, and
observations outside their declared bounds are reported. Then it trains a model that is too small to learn.

The suite's package must be installed; `make test-envs` does that for all suites.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
STEPS = 2000
WANDERED = 300  # steps of two environments for each kind of action
EXAMPLES = {
    "atari": ["atari:pong", "atari100k:pong"],
    "box2d": ["gym:LunarLander-v3", "gym:BipedalWalker-v3"],
    "brax": ["brax:inverted_pendulum"],
    "bsuite": ["bsuite:catch/0", "bsuite:cartpole/0"],
    "craftax": ["craftax:Craftax-Classic-Symbolic-v1"],
    "crafter": ["crafter:reward"],
    "dmc": ["dmc:walker-walk", "dmc:cartpole-swingup"],
    "gymnax": ["gymnax:CartPole-v1", "gymnax:Breakout-MinAtar"],
    "memory-maze": ["memory-maze:9x9"],
    "minigrid": ["minigrid:MiniGrid-DoorKey-6x6-v0"],
    "mujoco": ["gym:HalfCheetah-v5", "gym:InvertedPendulum-v5"],
    "popgym": ["popgym:RepeatPreviousEasy", "popgym:NoisyPositionOnlyCartPoleEasy"],
}
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
    --env.num-envs=2 --train.prefill=200 --train-ratio=4 --train.batch-size=2 --train.sequence-length=8
    --replay.capacity=3000 --eval.every=1000 --eval.episodes=1 --eval.final-episodes=2 --eval.num-envs=2
    --log.video-every=0 --no-log.tensorboard --no-log.report --backend=cpu
"""


def wander(env_id: str) -> None:
    """Steps an environment with random actions, and with each of several constant ones."""
    sys.path.insert(0, str(ROOT))
    from dreamerjax.config import EnvConfig
    from dreamerjax.envs import make_env

    env = make_env(EnvConfig(id=env_id), num_envs=2, seed=0)
    generator, size = np.random.default_rng(0), env.spaces.action_size
    constant = [np.zeros(size), np.ones(size), -np.ones(size), *np.eye(size)[:6]]
    notes, outside = set[str](), 0
    for action in [None, *constant]:
        env.reset()
        for _ in range(WANDERED):
            env.step(env.random_action(generator) if action is None else np.float32([action, action]))
            events = env.take_events()
            notes |= {event.note for event in events if event.note}
            outside += sum(event.outside for event in events)
    env.close()
    steps = 2 * WANDERED * (1 + len(constant))
    print(
        "\n".join([f"{env_id}: {steps:,} steps, {outside} observations outside declared bounds", *sorted(notes)]),
        flush=True,
    )


def smoke(env: str) -> None:
    """Trains, checks the summary, and resumes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        for steps in (STEPS, STEPS + 200):
            command = [sys.executable, str(ROOT / "run.py"), "--env", *env.split(), f"--run-dir={run}"]
            subprocess.run([*command, f"--env-steps={steps}", *FLAGS.split()], cwd=ROOT, check=True)
            summary = json.loads((run / "summary.json").read_text())
            if summary["env_steps"] < steps:
                sys.exit(f"{env}: {summary['env_steps']} steps done, expected {steps}.")
        print(f"{env}: trained, evaluated and resumed; mean return {summary['eval']['return_mean']:.3g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", choices=ENVS)
    for suite in parser.parse_args().suites:
        for env_id in EXAMPLES[suite]:
            wander(env_id)
        for env_id in ENVS[suite]:
            smoke(env_id)
