"""Pacing: how many updates the world model gets for each of the actor-critic.

An actor-critic that outruns its world model learns from dreams that are stale. Each rule is pure: the number of the
dispatch and whether the world model is surprised decide which parts the next dispatches train.
"""

from collections.abc import Mapping
from typing import Any

from dreamerjax.agent.train_step import Mode
from dreamerjax.config import TrainConfig

USUAL_RATE = 0.02  # of the moving average that is the usual KL, for each dispatch


def next_modes(config: TrainConfig, dispatch: int, *, surprised: bool) -> tuple[Mode, ...]:
    """What the next dispatches train; the last one counts for the train ratio, any before it are extra.

    Args:
        config: the rule and its factor k.
        dispatch: number of the dispatch that counts, from 0.
        surprised: whether the world model lags behind what is new.
    """
    both: tuple[Mode, ...] = (config.mode,)
    model_alone: tuple[Mode, ...] = ("world_model",)
    if config.mode == "joint":
        if config.pacing == "throttle" and dispatch % config.pacing_factor:
            return model_alone
        if config.pacing == "model_ratio" or (config.pacing == "surprise" and surprised):
            return model_alone * (config.pacing_factor - 1) + both
    return both


class Surprise:
    """Whether the world model is worse on what is new than usual: by its KL, or by its loss on the newest rows."""

    def __init__(self, threshold: float) -> None:
        """Not surprised, and without an idea of what is usual."""
        self._threshold = threshold
        self._usual: float | None = None  # KL
        self._kl_is_high = self._loss_is_high = False

    def __bool__(self) -> bool:
        """Whether it is surprised now."""
        return self._kl_is_high or self._loss_is_high

    def updated(self, kl: float) -> None:
        """Updates had this mean KL of posterior and prior."""
        usual = kl if self._usual is None else self._usual
        self._kl_is_high = kl > self._threshold * usual
        self._usual = (1 - USUAL_RATE) * usual + USUAL_RATE * kl

    def diagnosed(self, newest_loss: float, usual_loss: float) -> None:
        """The world model's loss on the newest rows and on all of the replay."""
        self._loss_is_high = newest_loss > self._threshold * usual_loss

    def state(self) -> dict[str, Any]:
        """What `load` takes, JSON-able."""
        return {"usual": self._usual, "kl_is_high": self._kl_is_high, "loss_is_high": self._loss_is_high}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self._usual = state["usual"]
        self._kl_is_high, self._loss_is_high = state["kl_is_high"], state["loss_is_high"]
