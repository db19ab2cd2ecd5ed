"""Creates the parts of one training run from its settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dreamerjax.agent.agent import Agent, build_agent
from dreamerjax.config import Config
from dreamerjax.envs import VectorEnv, make_env
from dreamerjax.monitoring.diagnosis import Diagnosis
from dreamerjax.monitoring.terminal import Display
from dreamerjax.replay.replay import Replay, make_replay
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runtime.memory import check_replay_fits
from dreamerjax.runtime.profiler import Profiler
from dreamerjax.training.collector import Collector
from dreamerjax.training.evaluation import Evaluator
from dreamerjax.training.learner import Learner
from dreamerjax.training.pacing import Surprise
from dreamerjax.training.reporter import Reporter


@dataclasses.dataclass
class Counters:
    """Counts of a run that none of its parts has; saved with every checkpoint."""

    updates: int = 0
    warmup_updates: int = 0  # of them, of the world model alone, before training
    extra_updates: int = 0  # of them, of the world model alone, for its pacing
    train_start: int = 0  # environment steps when training began; the train ratio counts from here
    evaluated_at: int = 0  # environment steps of the last evaluation
    filmed_at: int = 0  # environment steps of the last films
    compile_seconds: float = 0.0  # of earlier processes
    solved_at: dict[str, Any] | None = None

    def load(self, saved: Mapping[str, Any]) -> None:
        """Takes over the counts of a checkpoint."""
        vars(self).update(vars(Counters(**saved)))


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a training run consists of."""

    config: Config
    folder: RunFolder
    env: VectorEnv
    agent: Agent
    replay: Replay
    collector: Collector
    learner: Learner
    evaluator: Evaluator
    diagnosis: Diagnosis
    surprise: Surprise
    profiler: Profiler
    reporter: Reporter
    eval_seed: int
    counters: Counters = dataclasses.field(default_factory=Counters)

    @property
    def env_steps(self) -> int:
        """Environment steps made so far."""
        return self.collector.env_steps

    @property
    def compile_seconds(self) -> float:
        """Seconds of compilation, of earlier processes too."""
        return self.counters.compile_seconds + self.learner.compile_seconds

    def report_counts(self) -> None:
        """Passes the numbers of steps and updates to the reporter."""
        self.reporter.env_steps, self.reporter.updates = self.env_steps, self.counters.updates

    def close(self) -> None:
        """Closes all parts; an error of one is printed, so that it does not hide the error that ends the run."""
        for part in (self.profiler, self.reporter, self.evaluator, self.env):
            try:
                part.close()
            except Exception as error:
                self.reporter.note(f"Not closed: {type(error).__name__}: {error}")


def make_parts(config: Config, folder: RunFolder, display: Display, *, profile: bool) -> Parts:
    """Makes environments, replay and agent.

    Args:
        config: resolved.
        folder: locked by this process.
        display: entered.
        profile: whether traces of the profiler are written into the run folder.

    Raises:
        EnvError: the environment does not exist or is not supported.
        ConfigError: the replay does not fit into memory or onto the disk.
    """
    # One stream of random numbers for each consumer, all from the one seed.
    env_seed, replay_seed, policy_seed, agent_seed, eval_seed, diagnosis_seed = (
        int(seed) for seed in np.random.SeedSequence(config.seed).generate_state(6)
    )
    num_envs = config.env.num_envs
    env = make_env(config.env, num_envs=num_envs, seed=env_seed)
    check_replay_fits(config.replay, env.spaces, config.agent.model)
    replay = make_replay(
        config.replay,
        env.spaces,
        num_envs=num_envs,
        seed=replay_seed,
        model=config.agent.model,
        sequence_length=config.train.sequence_length,
        folder=folder.replay,
    )
    agent = build_agent(config.agent, env.spaces)
    acting, device = agent, None
    if config.train.collection == "overlapped":
        device = jax.local_devices(backend="cpu")[0]
        acting = build_agent(dataclasses.replace(config.agent, precision="float32"), env.spaces)
    return Parts(
        config=config,
        folder=folder,
        env=env,
        agent=agent,
        replay=replay,
        collector=Collector(acting, env, replay, seed=policy_seed, device=device),
        learner=Learner(agent, seed=agent_seed, policy_device=device),
        evaluator=Evaluator(
            agent,
            config.env,
            num_envs=min(config.eval.num_envs, config.eval.episodes),
            max_episode_steps=config.eval.max_episode_steps,
            env=env if config.eval.in_training_env else None,
        ),
        diagnosis=Diagnosis(agent, config.train, replay, num_envs=num_envs, seed=diagnosis_seed),
        surprise=Surprise(config.train.pacing_surprise),
        profiler=Profiler(folder.profile if profile else None),
        reporter=Reporter(config, folder, display),
        eval_seed=eval_seed,
    )
