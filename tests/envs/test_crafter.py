"""Crafter: achievements, the score, deaths and reproducible worlds."""

from typing import Any

import numpy as np
import pytest

from dreamerjax.config import EnvConfig
from dreamerjax.envs import make_single
from tests.envs.suites import THIRD_PARTY, make, needs, same, walk

pytestmark = THIRD_PARTY


@needs("crafter")
def test_crafter_reports_achievements():
    """Random actions with a short limit; the score is over all episodes of the copy."""
    from dreamerjax.envs.crafter_env import crafter_score

    single: Any = make_single(EnvConfig(id="crafter:reward"))
    single.reset(seed=0)
    single._world._length = 150
    totals, generator = [], np.random.default_rng(0)
    for _ in range(2):
        single.reset()
        truncated, earned = False, 0.0
        while not truncated:
            _, reward, terminated, truncated, info = single.step(generator.integers(single.action_space.n))
            earned += reward
            assert not terminated
            assert ("metrics" in info) == truncated
        unlocked = {name: value for name, value in info["metrics"].items() if name.startswith("achievement_")}
        assert len(unlocked) == 22
        assert "achievement_collect_wood" in unlocked
        assert set(unlocked.values()) == {0.0, 1.0}
        assert abs(sum(unlocked.values()) - earned) < 1  # health adds tenths
        totals.append(list(unlocked.values()))
        assert info["metrics"]["crafter_score"] == pytest.approx(crafter_score(np.mean(totals, axis=0)))


@needs("crafter")
def test_crafter_death_is_terminal_and_rewards_can_be_switched_off():
    for task, loss in (("reward", -0.9), ("noreward", 0.0)):
        single: Any = make_single(EnvConfig(id=f"crafter:{task}"))
        single.reset(seed=0)
        single._world._player.health = 0
        _, reward, terminated, truncated, _ = single.step(0)
        assert reward == pytest.approx(loss)
        assert (terminated, truncated) == (True, False)


@needs("crafter")
def test_crafter_score_is_the_published_one():
    """Checks the extreme values of the formula."""
    from dreamerjax.envs.crafter_env import crafter_score

    assert crafter_score([1.0] * 22) == pytest.approx(100)
    assert crafter_score([0.0] * 22) == 0
    assert crafter_score([1.0, 0.0]) == pytest.approx(101**0.5 - 1)


@needs("crafter")
def test_crafter_worlds_are_reproducible_for_many_steps():
    """Creatures appear and disappear at random: their order must not depend on memory addresses."""
    assert same(walk(make("crafter:reward", num_envs=1), 400), walk(make("crafter:reward", num_envs=1), 400))
