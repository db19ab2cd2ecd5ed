"""Whether a run learned: a verdict from its greedy returns, beside what random actions get."""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from dreamerjax.config import Config
from dreamerjax.viz.course import Pattern, pattern
from dreamerjax.viz.verdict import Lines, Verdict, least_updates, look, sound, unclear, updates_of, values_of

Word = Literal[
    "solved",
    "learned",
    "stalled",
    "declined",
    "collapsed",
    "did not learn",
    "too short to tell",
    "not judged",
    "not evaluated",
]

FEWEST_EPISODES = 3  # that tell something about their spread
BEYOND_CHANCE = 3.0  # standard errors by which two means must differ
BEYOND_CHANCE_OF_MANY = 4.0  # the same of the best of many evaluations
LEAST_SHARE = 0.01  # of the larger one, by which they must differ, too
LOST = 0.5  # of what was gained: a collapse
HOW: dict[Pattern, str] = {
    "rising": "it still rises",
    "plateau": "it has levelled off",
    "peak then decline": "it has fallen since its peak",
    "up and down": "it goes up and down",
    "too few to tell": "there are too few evaluations to tell whether it still rises",
}


class Score(NamedTuple):
    """A mean return with its standard error."""

    mean: float
    error: float
    step: int = 0  # environment steps

    def differs(self, other: "Score", errors: float = BEYOND_CHANCE) -> bool:
        """Whether it differs from another one by more than chance."""
        least = max(errors * math.hypot(self.error, other.error), LEAST_SHARE * max(abs(self.mean), abs(other.mean)))
        return abs(self.mean - other.mean) > least


class Learning(NamedTuple):
    """What became of a run, in a word or three, and why."""

    word: Word
    verdict: Verdict


def judge_learning(lines: Lines, config: Config) -> Learning:
    """Judges a run by its greedy returns.

    They are compared with the returns of random actions, those of the episodes before the first update, or with the
    first evaluation, where there are fewer than three such episodes. What differs by less than three standard errors
    counts as the same.

    Args:
        lines: of `read_metrics`.
        config: of the run, for its goal and its budget.
    """
    scores, goal = list(scores_of(lines)), config.env.solve_return
    if not scores:
        return Learning("not evaluated", unclear("There is no evaluation yet."))
    last, best = scores[-1], max(scores)
    if goal is not None and last.mean >= goal:
        return Learning("solved", sound(f"Its last evaluation, {last.mean:,.1f}, reaches the goal of {goal:g}."))
    if config.train.mode == "world_model":
        return Learning("not judged", unclear("Only the world model was trained: its returns are those of no policy."))
    base, whose = _before_learning(lines, scores)
    updates = updates_of(lines, config)
    if base is None or (updates < least_updates(config) and not _above(last, base, BEYOND_CHANCE)):
        reason = f"{updates:,} updates" if base is not None else "one evaluation, and no random episodes before it"
        return Learning("too short to tell", unclear(f"With {reason}, too little happened to say whether it learns."))
    before = f"{base.mean:,.1f} of {whose}"
    if not _above(best, base, BEYOND_CHANCE_OF_MANY) and not _above(last, base, BEYOND_CHANCE):
        compared = "below" if last.differs(base) else "no better than"
        told = f"After {updates:,} updates its return, {last.mean:,.1f}, is {compared} the {before}."
        return Learning("did not learn", look(told))
    return _judge_learned(scores, base, before, goal)


def scores_of(lines: Lines) -> Iterator[Score]:
    """The evaluations, oldest first; the last one of those at the same step.

    One or two episodes do not tell their own spread: theirs counts as no less than that of episodes of random actions,
    or of the evaluations, where there are fewer than three such episodes.
    """
    at = {line["step"]: line for line in lines if math.isfinite(line.get("eval/return_mean", math.nan))}
    others = _random_returns(lines)
    if len(others) < FEWEST_EPISODES:
        others = [line["eval/return_mean"] for line in at.values()]
    for step, line in at.items():
        episodes, std = max(1, line.get("eval/episodes", 1)), line.get("eval/return_std", 0.0)
        if episodes < FEWEST_EPISODES:
            std = max(std, float(np.std(others)))
        yield Score(line["eval/return_mean"], std / math.sqrt(episodes), step)


def _judge_learned(scores: list[Score], base: Score, before: str, goal: float | None) -> Learning:
    """Of a run that was better than chance at some time."""
    last, best = scores[-1], max(scores)
    how = pattern(np.array([score.mean for score in scores]))
    fell = last.differs(best)
    told = f"Its return had reached {best.mean:,.1f} after {best.step:,} environment steps, from the {before}"
    if fell and best.mean - last.mean > LOST * (best.mean - base.mean):
        return Learning("collapsed", look(f"{told}, and has lost more than half of that: {last.mean:,.1f} at the end."))
    if fell and (how == "peak then decline" or not _above(last, base, BEYOND_CHANCE)):
        return Learning("declined", look(f"{told}, and has fallen to {last.mean:,.1f}."))
    told = f"Its return, {last.mean:,.1f}, is above the {before}"
    if goal is not None and how != "rising" and how != "too few to tell":
        return Learning("stalled", look(f"{told}, and short of the goal of {goal:g}; {HOW[how]}."))
    short = "" if goal is None else f", and short of the goal of {goal:g}"
    return Learning("learned", (look if how == "up and down" else sound)(f"{told}{short}; {HOW[how]}."))


def _above(score: Score, base: Score, errors: float) -> bool:
    return score.mean > base.mean and score.differs(base, errors)


def _before_learning(lines: Lines, scores: list[Score]) -> tuple[Score | None, str]:
    """What a run got before it had learned anything, and what that was."""
    random = _random_returns(lines)
    if len(random) >= FEWEST_EPISODES:
        return Score(float(np.mean(random)), float(np.std(random) / math.sqrt(len(random)))), "random actions"
    return (scores[0], "its first evaluation") if len(scores) > 1 else (None, "")


def _random_returns(lines: Lines) -> list[float]:
    """The returns of the training episodes before the first update."""
    return values_of([line for line in lines if line["update"] == 0], "episode/return")
