"""The verdict on whether a run learned, from its greedy returns compared with those of random actions."""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from dreamerjax.config import Config
from dreamerjax.viz.curve_shape import Pattern, pattern
from dreamerjax.viz.verdict import Lines, Verdict, min_updates, ok, unclear, updates_of, values_of, warning

Word = Literal[
    "solved",
    "learned",
    "stalled",
    "declined",
    "collapsed",
    "did not learn",
    "too short to judge",
    "not judged",
    "not evaluated",
]

MIN_EPISODES = 3  # to estimate their spread
SIGNIFICANT = 3.0  # standard errors by which two means must differ
SIGNIFICANT_BEST = 4.0  # the same for the best of many evaluations
MIN_DIFFERENCE = 0.01  # of the larger mean, by which two means must also differ
COLLAPSE = 0.5  # share of the gained return whose loss is a collapse
TRENDS: dict[Pattern, str] = {
    "rising": "it still rises",
    "plateau": "it has levelled off",
    "peak then decline": "it has fallen since its peak",
    "up and down": "it goes up and down",
    "too few to tell": "there are too few evaluations to judge its trend",
}


class Score(NamedTuple):
    """A mean return with its standard error."""

    mean: float
    error: float
    step: int = 0  # environment steps

    def differs(self, other: "Score", errors: float = SIGNIFICANT) -> bool:
        """Whether the difference from another score is significant."""
        least = max(errors * math.hypot(self.error, other.error), MIN_DIFFERENCE * max(abs(self.mean), abs(other.mean)))
        return abs(self.mean - other.mean) > least


class Learning(NamedTuple):
    """The outcome of a run in a few words, and the verdict with its reason."""

    word: Word
    verdict: Verdict


def judge_learning(lines: Lines, config: Config) -> Learning:
    """Judges a run by its greedy returns.

    They are compared with the returns of random actions (the episodes before the first update), or with the first
    evaluation if there are fewer than three such episodes. Differences below three standard errors do not count.

    Args:
        lines: of `read_metrics`.
        config: of the run, for its goal and its budget.
    """
    scores, goal = list(scores_of(lines)), config.env.solve_return
    if not scores:
        return Learning("not evaluated", unclear("There is no evaluation yet."))
    last, best = scores[-1], max(scores)
    if goal is not None and last.mean >= goal:
        return Learning("solved", ok(f"The last evaluation, {last.mean:,.1f}, reaches the goal of {goal:g}."))
    if config.train.mode == "world_model":
        return Learning(
            "not judged", unclear("Only the world model was trained, so the returns are not those of a trained policy.")
        )
    base, whose = _before_learning(lines, scores)
    updates = updates_of(lines, config)
    if base is None or (updates < min_updates(config) and not _above(last, base, SIGNIFICANT)):
        reason = f"{updates:,} updates" if base is not None else "one evaluation and no episodes of random actions"
        return Learning(
            "too short to judge", unclear(f"{reason[:1].upper()}{reason[1:]}: too little to judge learning.")
        )
    before = f"{base.mean:,.1f} of {whose}"
    if not _above(best, base, SIGNIFICANT_BEST) and not _above(last, base, SIGNIFICANT):
        compared = "below" if last.differs(base) else "no better than"
        text = f"After {updates:,} updates the return, {last.mean:,.1f}, is {compared} the {before}."
        return Learning("did not learn", warning(text))
    return _judge_learned(scores, base, before, goal)


def scores_of(lines: Lines) -> Iterator[Score]:
    """The evaluations, oldest first; of several at one step, the last.

    One or two episodes are too few to estimate their spread. It is then at least that of the episodes of random
    actions, or of the evaluations if there are fewer than three such episodes.
    """
    at = {line["step"]: line for line in lines if math.isfinite(line.get("eval/return_mean", math.nan))}
    others = _random_returns(lines)
    if len(others) < MIN_EPISODES:
        others = [line["eval/return_mean"] for line in at.values()]
    for step, line in at.items():
        episodes, std = max(1, line.get("eval/episodes", 1)), line.get("eval/return_std", 0.0)
        if episodes < MIN_EPISODES:
            std = max(std, float(np.std(others)))
        yield Score(line["eval/return_mean"], std / math.sqrt(episodes), step)


def _judge_learned(scores: list[Score], base: Score, before: str, goal: float | None) -> Learning:
    """The verdict on a run that was significantly better than random actions at some step."""
    last, best = scores[-1], max(scores)
    trend = pattern(np.array([score.mean for score in scores]))
    fell = last.differs(best)
    text = f"The return reached {best.mean:,.1f} after {best.step:,} environment steps, from the {before}"
    if fell and best.mean - last.mean > COLLAPSE * (best.mean - base.mean):
        return Learning(
            "collapsed", warning(f"{text}, and lost more than half of the gain: {last.mean:,.1f} at the end.")
        )
    if fell and (trend == "peak then decline" or not _above(last, base, SIGNIFICANT)):
        return Learning("declined", warning(f"{text}, and fell to {last.mean:,.1f}."))
    text = f"The return, {last.mean:,.1f}, is above the {before}"
    if goal is not None and trend != "rising" and trend != "too few to tell":
        return Learning("stalled", warning(f"{text}, but below the goal of {goal:g}; {TRENDS[trend]}."))
    short = "" if goal is None else f", but below the goal of {goal:g}"
    return Learning("learned", (warning if trend == "up and down" else ok)(f"{text}{short}; {TRENDS[trend]}."))


def _above(score: Score, base: Score, errors: float) -> bool:
    return score.mean > base.mean and score.differs(base, errors)


def _before_learning(lines: Lines, scores: list[Score]) -> tuple[Score | None, str]:
    """The score before learning, and its source as words."""
    random = _random_returns(lines)
    if len(random) >= MIN_EPISODES:
        return Score(float(np.mean(random)), float(np.std(random) / math.sqrt(len(random)))), "random actions"
    return (scores[0], "the first evaluation") if len(scores) > 1 else (None, "")


def _random_returns(lines: Lines) -> list[float]:
    """The returns of the training episodes before the first update."""
    return values_of([line for line in lines if line["update"] == 0], "episode/return")
