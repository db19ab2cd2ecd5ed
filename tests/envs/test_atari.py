"""Atari: frames, starts and ends of episodes, games and colours."""

from typing import Any

import numpy as np
import pytest

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import UnknownEnvironmentError, make_single
from dreamerjax.types import ObsSpec
from tests.envs.suites import THIRD_PARTY, make, needs

pytestmark = THIRD_PARTY


@needs("ale_py")
def test_atari_observes_the_maximum_of_the_last_two_of_four_frames():
    """Compares with ALE stepped frame by frame, from the saved state of the environment."""
    import ale_py

    single: Any = make_single(EnvConfig(id="atari100k:space_invaders"))
    single.reset(seed=0)
    for action in range(6):
        before = single._ale.cloneState(include_rng=True)
        seen, reward, *_ = single.step(action)
        after = single._ale.cloneState(include_rng=True)
        single._ale.restoreState(before)
        earned, frames = 0, []
        for _ in range(4):
            earned += single._ale.act(ale_py.ALEInterface.getMinimalActionSet(single._ale)[action])
            frames.append(single._ale.getScreenRGB())
        single._ale.restoreState(after)
        np.testing.assert_array_equal(seen["image"], np.maximum(frames[2], frames[3]))
        assert reward == earned
    assert any((frames[2] != frames[3]).any((0, 1)))


@needs("ale_py")
def test_atari_has_random_no_op_starts_and_the_sticky_actions_of_the_benchmark():
    frames = set()
    for seed in range(8):
        single: Any = make_single(EnvConfig(id="atari:pong"))
        single.reset(seed=seed)
        frames.add(single._ale.getEpisodeFrameNumber())
    assert len(frames) > 3
    assert max(frames) <= 30
    assert single._ale.getFloat("repeat_action_probability") == 0.25
    other: Any = make_single(EnvConfig(id="atari100k:pong"))
    assert other._ale.getFloat("repeat_action_probability") == 0.0
    assert (single.action_space.n, other.action_space.n) == (18, 6)


@needs("ale_py")
def test_atari_episodes_end_with_the_game_not_with_a_life_or_by_their_limit(monkeypatch):
    single: Any = make_single(EnvConfig(id="atari100k:breakout"))
    single.reset(seed=0)
    lives, terminated, steps = [], False, 0
    while not terminated:
        _, _, terminated, truncated, _ = single.step([1, 3][steps % 2])  # fire, and to the left
        lives.append(single._ale.lives())
        steps += 1
        assert not truncated
        assert terminated == (lives[-1] == 0)
    assert set(lives) == {5, 4, 3, 2, 1, 0}

    monkeypatch.setattr("dreamerjax.envs.atari.LIMIT", 42)
    single.reset(seed=0)
    ends = [single.step(0)[2:4] for _ in range(11)]
    assert ends == [(False, False)] * 10 + [(False, True)]


@needs("ale_py")
def test_atari_colours_and_games_for_two():
    env = make("atari:pong", image=ImageConfig(height=96, width=96, colour="grey"))
    assert env.spaces.obs == (ObsSpec("image", (96, 96, 1)),)
    with pytest.raises(UnknownEnvironmentError, match="atari:combat: there is no such environment"):
        make("atari:combat")
