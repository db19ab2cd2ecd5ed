"""Converts the command-line flags of the bench to settings. Nothing here uses JAX."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamerjax.config import SIZES, Config, flatten
from dreamerjax.runs.settings import combine, read_yaml
from dreamerjax.types import ActionSpec, ObsSpec, Spaces

IMAGE = (64, 64, 3)  # height, width, channels
ROUNDS, SWEEP_ROUNDS = 8, 5
SWEPT = (
    *("size", "batch-size", "sequence-length", "horizon", "num-envs", "replay-rows", "replay-storage", "precision"),
    *("observe-unroll", "imagine-unroll", "updates-per-dispatch"),
)

# Flags that are other names of settings. Not given, they are those of dreamerjax/config: the published values.
KEYS = {
    "size": "agent.model.size",
    "batch_size": "train.batch_size",
    "sequence_length": "train.sequence_length",
    "horizon": "agent.returns.imagination_horizon",
    "precision": "agent.precision",
    "num_envs": "env.num_envs",
    "updates_per_dispatch": "train.updates_per_dispatch",
    "replay_rows": "replay.capacity",
    "replay_storage": "replay.storage",
    "observe_unroll": "agent.observe_unroll",
    "imagine_unroll": "agent.imagine_unroll",
    "rematerialise": "agent.rematerialise",
}


@dataclass(frozen=True)
class BenchSettings:
    """One piece of work to measure."""

    config: Config  # resolved; of train, replay and env only what `KEYS` names counts
    obs_size: int  # numbers in an observation
    actions: int  # to choose from
    image: bool  # a 64x64x3 uint8 image in place of the vector
    rounds: int

    @property
    def spaces(self) -> Spaces:
        """What the agent sees and does."""
        obs = ObsSpec("image", IMAGE) if self.image else ObsSpec("state", (self.obs_size,))
        return Spaces((obs,), (ActionSpec("discrete", self.actions),))

    def as_json(self) -> dict[str, Any]:
        """Every setting that the figures depend on: those with a flag by its name, then the agent's."""
        flat = flatten(self.config)
        own = {"obs_size": self.obs_size, "actions": self.actions, "image": self.image, "rounds": self.rounds}
        return {
            **{name: flat[key] for name, key in KEYS.items()},
            **own,
            **{key: value for key, value in flat.items() if key.startswith("agent.") and key not in KEYS.values()},
        }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declares every flag of the command but the back-end's."""
    number: dict[str, Any] = {"type": _one_or_more, "metavar": "N"}
    flag = parser.add_argument
    flag("--size", choices=tuple(SIZES), help="size of the model (default: 1m)")
    flag("--batch-size", **number, help="windows in an update (default: 16)")
    flag("--sequence-length", **number, help="rows in a window (default: 64)")
    flag("--horizon", **number, help="imagined steps (default: 15)")
    flag("--precision", choices=("auto", "float32", "bfloat16"), help="auto: float32 on a CPU (default: auto)")
    flag("--num-envs", **number, help="environments stepped together (default: 1)")
    flag("--updates-per-dispatch", **number, help="updates in one call to the device (default: 4)")
    flag("--replay-rows", **number, default=10_000, help="rows in the replay buffer (default: 10000)")
    flag("--replay-storage", choices=("memory", "device"), help="where batches are gathered (default: memory)")
    flag("--observe-unroll", **number, help="replayed steps in one pass of the compiled loop (default: 1)")
    flag("--imagine-unroll", **number, help="imagined steps in one pass (default: 1)")
    flag(
        "--rematerialise",
        action="store_true",
        default=None,
        help="recompute activations for the gradient, to save memory",
    )
    flag("--obs-size", **number, default=4, help="numbers in an observation (default: 4)")
    flag("--actions", **number, default=2, help="actions to choose from (default: 2)")
    flag("--image", action="store_true", help="observe a 64x64x3 image instead of a vector")
    flag("--config", type=Path, action="append", default=[], metavar="FILE", help="more settings, as YAML")
    flag("--rounds", **number, help=f"measurements (default: {ROUNDS}; {SWEEP_ROUNDS} for each point of a sweep)")
    flag("--json", action="store_true", help="print JSON and nothing else")
    flag("--env", metavar="NAME", help="measure an environment's speed instead, with 1, 4 and 16 environments")
    flag("--compare", nargs=2, type=Path, metavar=("A", "B"), help="compare two files of --json instead of measuring")
    flag("--sweep", metavar="KEY=V1,V2,...", help=f"measure each value of one of {', '.join(SWEPT)}")


def read_bench_settings(given: argparse.Namespace) -> BenchSettings:
    """The settings, from what `add_flags` declared.

    Raises:
        ConfigError: a value is out of its range, or a file of `--config` is wrong.
    """
    flags = {key: getattr(given, name) for name, key in KEYS.items() if getattr(given, name) is not None}
    # The budget of a run means nothing here; this one always holds a window.
    unlimited = {"train.env_steps": 10**12, "train.prefill": 0}
    return BenchSettings(
        config=combine([*map(read_yaml, given.config), flags, unlimited]),
        obs_size=given.obs_size,
        actions=given.actions,
        image=given.image,
        rounds=given.rounds or (SWEEP_ROUNDS if given.sweep else ROUNDS),
    )


def _one_or_more(text: str) -> int:
    try:
        if (number := int(text)) >= 1:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} was given, expected a whole number, 1 or more")
