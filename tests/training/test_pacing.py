"""Pacing: which updates each rule asks for, and what counts as surprise."""

import dataclasses

from dreamerjax.config import TrainConfig
from dreamerjax.training.pacing import Surprise, next_modes


def modes(pacing: str, dispatches: int = 4, *, factor: int = 3, surprised: bool = False, mode: str = "joint") -> list:
    config = dataclasses.replace(TrainConfig(), pacing=pacing, pacing_factor=factor, mode=mode)
    return [next_modes(config, number, surprised=surprised) for number in range(dispatches)]


def test_rules():
    extra = ("world_model", "world_model", "joint")
    assert modes("fixed") == modes("surprise") == [("joint",)] * 4
    assert modes("model_ratio") == modes("surprise", surprised=True) == [extra] * 4
    assert modes("throttle") == [("joint",), ("world_model",), ("world_model",), ("joint",)]


def test_only_joint_training_is_paced():
    assert modes("model_ratio", mode="actor_critic") == [("actor_critic",)] * 4


def test_surprise_is_a_kl_above_the_usual():
    surprise = Surprise(1.5)
    for _ in range(100):
        surprise.updated(2.0)
        assert not surprise
    surprise.updated(2.9)
    assert not surprise
    surprise.updated(3.2)
    assert surprise
    for _ in range(200):  # what lasts becomes the usual
        surprise.updated(3.2)
    assert not surprise


def test_surprise_is_a_loss_on_the_newest_rows_above_that_on_all():
    surprise = Surprise(1.5)
    surprise.diagnosed(newest_loss=1.4, usual_loss=1.0)
    assert not surprise
    surprise.diagnosed(newest_loss=1.6, usual_loss=1.0)
    assert surprise
    other = Surprise(1.5)
    other.load(surprise.state())
    assert other
    other.diagnosed(newest_loss=1.0, usual_loss=1.0)
    assert not other
