"""Pacing: the number of world-model updates for each actor-critic update.

An actor-critic that learns faster than its world model learns from outdated dreams. Each rule is a pure function of the
dispatch's number and of the surprise of the world model.
"""

from collections.abc import Mapping
from typing import Any

from dreamerjax.agent.train_step import Mode
from dreamerjax.config import TrainConfig

USUAL_RATE = 0.02  # of the moving average of the KL, for each dispatch


def next_modes(config: TrainConfig, dispatch: int, *, surprised: bool) -> tuple[Mode, ...]:
    """What the next dispatches train; the last one counts for the train ratio, any before it are extra.

    Args:
        config: the rule and its factor k.
        dispatch: number of the dispatch that counts, from 0.
        surprised: whether the world model is worse on new rows than usual.
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
    """Whether the world model is worse than usual: by its KL, or by its loss on the newest rows."""

    def __init__(self, threshold: float) -> None:
        """Not surprised; the usual KL is unknown."""
        self._threshold = threshold
        self._usual: float | None = None  # KL
        self._kl_is_high = self._loss_is_high = False

    def __bool__(self) -> bool:
        """Whether the world model is surprised."""
        return self._kl_is_high or self._loss_is_high

    def updated(self, kl: float) -> None:
        """Takes the mean KL of posterior and prior of the newest updates."""
        usual = kl if self._usual is None else self._usual
        self._kl_is_high = kl > self._threshold * usual
        self._usual = (1 - USUAL_RATE) * usual + USUAL_RATE * kl

    def diagnosed(self, newest_loss: float, usual_loss: float) -> None:
        """Takes the world model's loss on the newest rows and on the whole replay."""
        self._loss_is_high = newest_loss > self._threshold * usual_loss

    def state(self) -> dict[str, Any]:
        """What `load` needs, JSON-able."""
        return {"usual": self._usual, "kl_is_high": self._kl_is_high, "loss_is_high": self._loss_is_high}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self._usual = state["usual"]
        self._kl_is_high, self._loss_is_high = state["kl_is_high"], state["loss_is_high"]
