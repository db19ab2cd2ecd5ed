"""A run folder with a tiny agent that has learned nothing, in which one can play all the same."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.config import Config, EnvConfig, ImageConfig, flatten
from dreamerjax.envs import spaces_of
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import Snapshot
from dreamerjax.runs.lineage import as_host
from dreamerjax.runs.load import spaces_as_host
from dreamerjax.runs.run_folder import RunFolder
from tests.tiny import MODEL

SMALL = ImageConfig(height=32, width=48)


def make_run(
    folder: Path, *, env_id: str = "gym:CartPole-v1", obs: str = "state", steps: tuple[int, ...] = (1234,)
) -> Path:
    config = Config(env=EnvConfig(name="tiny", id=env_id, obs=obs, image=SMALL))
    agent_config = dataclasses.replace(config.agent, model=MODEL)
    config = dataclasses.replace(config, agent=agent_config)
    spaces = spaces_of(config.env)
    agent = build_agent(config.agent, spaces)
    host = as_host(config, ()) | {"spaces": spaces_as_host(spaces)}
    with RunFolder.open(folder) as run:
        run.write_config(flatten(config))
        for step in steps:
            state = jax.jit(lambda key: init_train_state(agent, key))(jax.random.PRNGKey(step))
            state = jax.tree.map(np.array, state).replace(opt_state=None)
            state.params.world_model["params"]["cont_head"]["out"]["bias"][:] = 5.0  # its dreams go on
            checkpoint.save(run.checkpoints, step, Snapshot(state, {}, host), keep=len(steps))
    return folder
