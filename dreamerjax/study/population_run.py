"""Runs a population sweep: loads the source's world model, trains the members, evaluates them in real environments.

runs/sweeps/NAME/seed0/checkpoints/      the whole population, at every evaluation
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.config import Config, ConfigError, family_key
from dreamerjax.envs import make_env, spaces_of
from dreamerjax.replay.replay import Replay, make_replay
from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import Snapshot
from dreamerjax.runs.lineage import family_as_host
from dreamerjax.runs.load import LoadedAgent, load_run
from dreamerjax.runs.run_folder import RunFolder, different_keys
from dreamerjax.study.jobs import Job
from dreamerjax.study.population import (
    compile_population,
    init_population,
    initial_population_policy,
    population_policy,
)
from dreamerjax.study.sweep_plan import SweepPlan
from dreamerjax.training.evaluation import play_episodes, summarise
from dreamerjax.types import Batch, TrainState

CHECKPOINTS_KEPT = 2


class Curves(NamedTuple):
    """The learning curves of a population of one seed."""

    updates: list[int]  # of each evaluation
    returns: list[list[float]]  # [evaluations][members] mean greedy return
    seconds: float  # of updates and evaluations, over all processes


def seed_folder(folder: Path, seed: int) -> Path:
    """The folder of the population of one seed, in the folder of its sweep."""
    return folder / f"seed{seed}"


def source_job(plan: SweepPlan) -> Job | None:
    """The job that trains the source world model; None if the plan names an existing run."""
    return Job(plan.source) if isinstance(plan.source, Config) else None


def run_population(
    plan: SweepPlan, folder: Path, *, say: Callable[[str], None], interrupted: Callable[[], bool] = lambda: False
) -> list[Curves] | None:
    """Trains and evaluates all members, one population for each seed.

    Args:
        plan: of a population; its source is trained.
        folder: for the checkpoints.
        say: called with a line of text at each evaluation.
        interrupted: polled before each dispatch.

    Returns:
        The curves by seed, or None if the user stopped it; the same call resumes from the last evaluation.

    Raises:
        ConfigError: the source belongs to another family.
        CheckpointError: the source has no checkpoint.
    """
    job = source_job(plan)
    run_dir = job.folder if job is not None else plan.source
    assert isinstance(run_dir, Path)
    source = load_run(run_dir)
    members = [plan.config_of(point) for point in plan.grid()]
    if different := different_keys(family_key(source.config), family_key(members[0])):
        raise ConfigError(
            f"{plan.where}: {run_dir} has another environment or architecture: {'; '.join(different)}.\n"
            "Give a run of the same family in `starts_from`, or use its settings in this sweep."
        )
    agent = build_agent(plan.config.agent, spaces_of(plan.config.env))
    replay = _load_replay(source)
    update = compile_population(agent)
    found = []
    for seed in plan.seeds:
        with RunFolder.open(seed_folder(folder, seed)) as held:
            one = _Population(plan, members, agent, source, replay, update, held.checkpoints, seed, say)
            curves = one.run(interrupted)
        if curves is None:
            return None
        found.append(curves)
    return found


class _Population:
    """The population of one seed."""

    def __init__(
        self,
        plan: SweepPlan,
        members: Sequence[Config],
        agent: Agent,
        source: LoadedAgent,
        replay: Replay,
        update: Callable[[TrainState, Batch], tuple[TrainState, Any]],
        checkpoints: Path,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._members, self._replay, self._update = plan, members, replay, update
        self._checkpoints, self._seed, self._say = checkpoints, seed, say
        self._num_envs = min(plan.config.eval.num_envs, plan.config.eval.episodes)  # of each member
        self._env = make_env(plan.config.env, num_envs=len(members) * self._num_envs, seed=seed)
        self._policy = population_policy(agent, len(members))
        self._policy_state = initial_population_policy(agent, len(members), self._num_envs)
        key, self._rows_seed, self._eval_seed = (int(x) for x in np.random.SeedSequence(seed).generate_state(3))
        configs = [member.agent for member in members]
        self._init = jax.jit(
            lambda state: init_population(agent, state, configs, jax.random.PRNGKey(key)), keep_unused=True
        )
        self._source = source.state
        # A resumed population must have the same plan and the same source at the same step.
        self._what = json.dumps([plan.over, plan.config, plan.updates, source.env_steps, source.run_dir], default=str)

    def run(self, interrupted: Callable[[], bool]) -> Curves | None:
        """Trains to the end, resuming from the newest checkpoint if there is one."""
        plan, curves = self._plan, Curves([], [], 0.0)
        if checkpoint.has_checkpoint(self._checkpoints):
            like = jax.eval_shape(self._init, self._source)
            snapshot, _ = checkpoint.restore(self._checkpoints, like, family=family_key(plan.config))
            if snapshot.host["what"] != self._what:
                raise ConfigError(
                    f"{self._checkpoints.parent} contains another sweep of this name, or its source has changed.\n"
                    "Rename the sweep file, or remove the folder."
                )
            state, curves = snapshot.train_state, Curves(**snapshot.host["curves"])
        else:
            state = self._init(self._source)
        done, begun, before = int(state.step), time.perf_counter(), curves.seconds
        for batches in self._batches(done):
            if interrupted():
                self._env.close()
                return None
            state, metrics = self._update(state, batches)
            jax.block_until_ready(metrics)
            done += len(batches.reward)
            if done // plan.evaluate_every > (done - len(batches.reward)) // plan.evaluate_every:
                returns = self._evaluate(state, done)
                curves = Curves(
                    [*curves.updates, done], [*curves.returns, returns], before + time.perf_counter() - begun
                )
                self._save(state, done, curves)
                self._say(
                    f"seed {self._seed}: {done:,} of {plan.updates:,} updates of {len(returns)} members, "
                    f"returns {min(returns):.0f} to {max(returns):.0f}, {curves.seconds:.0f} s"
                )
        self._env.close()
        return curves

    def _batches(self, done: int) -> Iterator[Batch]:
        """Batches [U, T, B, ...] from update `done` on; the rows depend only on the seed and the update's number."""
        train = self._plan.config.train
        for first in range(done, self._plan.updates, train.updates_per_dispatch):
            batches = []
            for update in range(first, min(first + train.updates_per_dispatch, self._plan.updates)):
                generator = np.random.default_rng((self._rows_seed, update))
                batches.append(self._replay.peek(train.batch_size, train.sequence_length, generator))
            yield jax.tree.map(lambda *rows: np.stack(rows), *batches)

    def _evaluate(self, state: TrainState, done: int) -> list[float]:
        """Mean greedy return of each member; all play at the same time."""
        seed = int(np.random.SeedSequence((self._eval_seed, done)).generate_state(1)[0])
        each = [len(share) for share in np.array_split(np.arange(self._plan.config.eval.episodes), self._num_envs)]
        policy = functools.partial(self._policy, state.params)
        quota = np.array(each * len(self._members))
        key, limit = jax.random.PRNGKey(seed), self._plan.config.eval.max_episode_steps
        finished = play_episodes(self._env, policy, self._policy_state, key, quota, seed=seed, max_episode_steps=limit)
        assert finished is not None, "no onlooker interrupts the evaluation"
        played = finished.by_copy
        by_member = np.array_split(np.arange(len(played)), len(self._members))
        return [summarise([x for copy in num_envs for x in played[copy]]).return_mean for num_envs in by_member]

    def _save(self, state: TrainState, done: int, curves: Curves) -> None:
        host = {"family": family_as_host(self._plan.config), "curves": curves._asdict(), "what": self._what}
        checkpoint.save(self._checkpoints, done, Snapshot(state, {}, host), keep=CHECKPOINTS_KEPT)


def _load_replay(source: LoadedAgent) -> Replay:
    """The source's replay buffer; windows start from the initial latent state, without stored contexts."""
    config = source.config
    if config.replay.storage == "disk":
        raise ConfigError(
            f"{source.run_dir} stores its replay buffer on disk (replay.storage), expected memory or device: "
            "a population loads it into memory."
        )
    replay = make_replay(
        dataclasses.replace(config.replay, storage="memory"),
        source.agent.spaces,
        num_envs=config.env.num_envs,
        seed=0,
        model=config.agent.model,
        sequence_length=config.train.sequence_length,
        folder=RunFolder(source.run_dir).replay,
    )
    like = jax.eval_shape(lambda key: init_train_state(source.agent, key), jax.random.PRNGKey(0))
    snapshot, _ = checkpoint.restore(RunFolder(source.run_dir).checkpoints, like)
    replay.load(checkpoint.unprefixed(snapshot.arrays, "replay."), snapshot.host["replay"])
    return replay
