"""Loads the agent of a run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.config import Config, family_key
from dreamerjax.envs import spaces_of
from dreamerjax.runs import checkpoint
from dreamerjax.runs.lineage import Lineage, lineage_of
from dreamerjax.runs.run_folder import RunFolder, no_run_folder, read_config
from dreamerjax.runs.settings import combine, read_yaml
from dreamerjax.types import ActionSpec, ObsSpec, Spaces, TrainState


class LoadedAgent(NamedTuple):
    """The agent of a run at one checkpoint."""

    run_dir: Path
    config: Config
    agent: Agent
    state: TrainState  # opt_state is None: only a resumed run needs it
    env_steps: int  # of the checkpoint
    notes: tuple[str, ...]  # newer checkpoints that are damaged, a sentence each
    lineage: Lineage = ()  # up to this checkpoint


def read_settings(run_dir: Path) -> Config | None:
    """The complete settings of a run folder, or None if it holds none; nothing is touched.

    Raises:
        RunFolderError: its config.yaml does not parse.
        ConfigError: a key or a value in it is not one of this version.
    """
    if read_config(run_dir) is None:
        return None
    return combine([read_yaml(RunFolder(run_dir).config_path)])


def spaces_as_host(spaces: Spaces) -> dict[str, Any]:
    """The agent's spaces for a checkpoint, JSON-able."""
    return {key: [spec._asdict() for spec in specs] for key, specs in spaces._asdict().items()}


def spaces_from_host(kept: Mapping[str, Any]) -> Spaces:
    """The spaces that `spaces_as_host` returned."""
    obs = (ObsSpec(spec["name"], tuple(spec["shape"]), spec["classes"]) for spec in kept["obs"])
    return Spaces(tuple(obs), tuple(ActionSpec(**spec) for spec in kept["actions"]))


def load_run(run_dir: Path, *, step: int | None = None) -> LoadedAgent:
    """Loads the newest good checkpoint of a run, or the one of `step`, without replay and environments.

    The environment need not be installed.

    Raises:
        RunFolderError: it is no run folder.
        CheckpointError: it has no good checkpoint, or one of another family than its settings.
    """
    config = read_settings(run_dir)
    if config is None:
        raise no_run_folder(run_dir)
    folder = RunFolder(run_dir).checkpoints
    host, _ = checkpoint.read_host(folder, step=step)
    # An older checkpoint has no spaces: they come from the environment, which must be installed.
    spaces = spaces_from_host(host["spaces"]) if "spaces" in host else spaces_of(config.env)
    agent = build_agent(config.agent, spaces)
    like = jax.eval_shape(lambda key: init_train_state(agent, key), jax.random.PRNGKey(0)).replace(opt_state=None)
    snapshot, restored = checkpoint.restore(folder, like, family=family_key(config), weights_only=True, step=step)
    lineage = lineage_of(snapshot.host)
    return LoadedAgent(run_dir, config, agent, snapshot.train_state, restored.step, restored.skipped, lineage)
