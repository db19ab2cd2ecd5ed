"""A sweep over a population: the source is made or loaded, the members dream, real environments judge them.

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

KEPT = 2  # checkpoints


class Curves(NamedTuple):
    """How a population of one seed fared."""

    updates: list[int]  # of each evaluation
    returns: list[list[float]]  # [evaluations][members] mean greedy return
    seconds: float  # of updates and evaluations, over all starts


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the population of one seed lies, in the folder of its sweep."""
    return folder / f"seed{seed}"


def source_job(plan: SweepPlan) -> Job | None:
    """The run whose world model the members dream in, where the plan says how to make it."""
    return Job(plan.source) if isinstance(plan.source, Config) else None


def run_population(
    plan: SweepPlan, folder: Path, *, say: Callable[[str], None], interrupted: Callable[[], bool] = lambda: False
) -> list[Curves] | None:
    """Trains and evaluates all members, one population for each seed.

    Args:
        plan: of a population; its source has been made.
        folder: for the checkpoints.
        say: told a line at each evaluation.
        interrupted: asked now and then.

    Returns:
        The curves by seed, or None if the user stopped it; the same call goes on from the last evaluation.

    Raises:
        ConfigError: the source is of another family.
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
            "Name a run of the same family, or give its settings here."
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
    """One seed."""

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
        # What must be the same to go on: another sweep, or a source that has gone on, is refused.
        self._what = json.dumps([plan.over, plan.config, plan.updates, source.env_steps, source.run_dir], default=str)

    def run(self, interrupted: Callable[[], bool]) -> Curves | None:
        """To the end, from where it was."""
        plan, curves = self._plan, Curves([], [], 0.0)
        if checkpoint.has_checkpoint(self._checkpoints):
            like = jax.eval_shape(self._init, self._source)
            snapshot, _ = checkpoint.restore(self._checkpoints, like, family=family_key(plan.config))
            if snapshot.host["what"] != self._what:
                raise ConfigError(
                    f"{self._checkpoints.parent} holds another sweep of this name, or its source has gone on.\n"
                    "Rename the file, or remove the folder."
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
        """[U, T, B, ...] from update `done` on: which rows depends on the seed and the number of the update alone."""
        train = self._plan.config.train
        for first in range(done, self._plan.updates, train.updates_per_dispatch):
            batches = []
            for update in range(first, min(first + train.updates_per_dispatch, self._plan.updates)):
                generator = np.random.default_rng((self._rows_seed, update))
                batches.append(self._replay.look(train.batch_size, train.sequence_length, generator))
            yield jax.tree.map(lambda *rows: np.stack(rows), *batches)

    def _evaluate(self, state: TrainState, done: int) -> list[float]:
        """Mean greedy return of each member; all play at the same time."""
        seed = int(np.random.SeedSequence((self._eval_seed, done)).generate_state(1)[0])
        each = [len(share) for share in np.array_split(np.arange(self._plan.config.eval.episodes), self._num_envs)]
        policy = functools.partial(self._policy, state.params)
        quota = np.array(each * len(self._members))
        key, limit = jax.random.PRNGKey(seed), self._plan.config.eval.max_episode_steps
        finished = play_episodes(self._env, policy, self._policy_state, key, quota, seed=seed, max_episode_steps=limit)
        assert finished is not None, "nobody interrupts it"
        played = finished.by_copy
        by_member = np.array_split(np.arange(len(played)), len(self._members))
        return [summarise([x for copy in num_envs for x in played[copy]]).return_mean for num_envs in by_member]

    def _save(self, state: TrainState, done: int, curves: Curves) -> None:
        host = {"family": family_as_host(self._plan.config), "curves": curves._asdict(), "what": self._what}
        checkpoint.save(self._checkpoints, done, Snapshot(state, {}, host), keep=KEPT)


def _load_replay(source: LoadedAgent) -> Replay:
    """What the source has collected; windows start from nothing, whatever contexts it kept."""
    config = source.config
    if config.replay.storage == "disk":
        raise ConfigError(f"{source.run_dir} keeps its replay on the disk; a population needs one in memory.")
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
