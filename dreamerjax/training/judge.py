"""Evaluations during a run: when they are due, and whether they show that the task is solved."""

import contextlib
from typing import Literal

import numpy as np

from dreamerjax.envs import EnvEvent
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.memory import give_back_memory
from dreamerjax.training.evaluation import Evaluation, Onlooker, cut_sentence
from dreamerjax.training.parts import Parts
from dreamerjax.training.reporter import Reporter


class _Onlooker(Onlooker):
    """Shows the progress of an evaluation, and ends it when the user wants to stop."""

    def __init__(self, reporter: Reporter, interrupt: Interrupt) -> None:
        self._reporter, self._interrupt = reporter, interrupt

    def interrupted(self) -> bool:
        return self._interrupt.requested is not None

    def progress(self, finished: int, wanted: int, steps: int) -> None:
        self._reporter.show(f"{finished} of {wanted} episodes, step {steps:,}")

    def event(self, event: EnvEvent) -> None:
        if event.note:
            self._reporter.note_once(event.topic, event.note)


class Judge:
    """Evaluates the agent; a mean return that more episodes confirm counts as solved."""

    def __init__(self, parts: Parts, interrupt: Interrupt) -> None:
        """Evaluates nothing yet."""
        self._parts, self._onlooker = parts, _Onlooker(parts.reporter, interrupt)

    def evaluate_if_due(self) -> Literal["solved", "interrupted"] | None:
        """Evaluates every `eval.every` environment steps; returns why training ends, if it does."""
        config, counters, now = self._parts.config, self._parts.counters, self._parts.env_steps
        if not config.eval.every or now - counters.evaluated_at < config.eval.every:
            return None
        evaluation = self._evaluate(config.eval.episodes)
        if evaluation is None:
            return "interrupted"
        confirming = None
        if self._reaches_goal(evaluation):  # more episodes, from other starts, decide
            confirming = self._evaluate(config.eval.final_episodes)
            if confirming is None:
                return "interrupted"
        counters.evaluated_at = now  # only now: an interrupted evaluation is repeated after a resume
        self._parts.reporter.evaluated(evaluation)
        self._diagnose()
        give_back_memory()
        if confirming is None:
            return None
        self._accept(confirming)
        return "solved" if counters.solved_at and config.train.stop_when_solved else None

    def evaluate_at_end(self) -> Literal["interrupted"] | None:
        """Evaluates with `eval.final_episodes`; returns "interrupted" if the user stops it."""
        evaluation = self._evaluate(self._parts.config.eval.final_episodes)
        if evaluation is None:
            return "interrupted"
        self._accept(evaluation)
        return None

    def _evaluate(self, episodes: int) -> Evaluation | None:
        """Plays greedy episodes; None if the user stops it."""
        parts, limit = self._parts, self._parts.config.eval.max_episode_steps
        parts.reporter.enter("evaluating")
        seed = np.random.SeedSequence((parts.eval_seed, parts.env_steps, episodes)).generate_state(1)[0]
        params = parts.learner.state.params
        in_training_env = parts.config.eval.in_training_env
        with parts.collector.lent_env() if in_training_env else contextlib.nullcontext():
            evaluation = parts.evaluator.run(params, episodes=episodes, seed=int(seed), onlooker=self._onlooker)
        if evaluation is None:
            return None
        parts.reporter.enter("training")
        if cut := cut_sentence(evaluation, limit):
            parts.reporter.note_once("episodes cut", cut)
        return evaluation

    def _accept(self, evaluation: Evaluation) -> None:
        """Reports an evaluation of many episodes, which decides whether the task is solved."""
        parts = self._parts
        parts.reporter.evaluated(evaluation)
        if self._reaches_goal(evaluation):
            parts.counters.solved_at = {
                "env_steps": parts.env_steps,
                "updates": parts.counters.updates,
                "wall_seconds": round(parts.reporter.wall_seconds, 3),
            }

    def _reaches_goal(self, evaluation: Evaluation) -> bool:
        """Whether the return is that of a solved task, which was not solved before."""
        goal = self._parts.config.env.solve_return
        return goal is not None and evaluation.return_mean >= goal and not self._parts.counters.solved_at

    def _diagnose(self) -> None:
        parts = self._parts
        if not parts.config.eval.diagnose or not parts.counters.updates:
            return
        found = parts.diagnosis.run(parts.learner.state, parts.env_steps)
        parts.surprise.diagnosed(found["world_model_loss_newest"], found["world_model_loss_replay"])
        parts.reporter.diagnosed(found)
