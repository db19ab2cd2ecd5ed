"""The return that counts as solved."""

import gymnasium
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.wrappers import (
    ClipReward,
    FlattenObservation,
    MaxAndSkipObservation,
    RecordEpisodeStatistics,
    TransformReward,
)

from dreamerjax.config import EnvConfig
from dreamerjax.envs import (
    inspect_env,
)
from dreamerjax.envs.reward_threshold import registered_goal


class Penalised(gymnasium.Wrapper):
    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, float(reward) - 0.1, *rest


class Brightened(gymnasium.ObservationWrapper):
    def observation(self, observation):
        return observation


def cart_pole(**options):
    return gymnasium.make("CartPole-v1", **options)


@pytest.mark.parametrize(
    ("maker", "value", "why"),
    [
        (cart_pole, 475.0, ""),
        (lambda: cart_pole(render_mode="rgb_array"), 475.0, ""),
        (lambda: Brightened(cart_pole()), 475.0, ""),
        (lambda: FlattenObservation(cart_pole()), 475.0, ""),
        (lambda: RecordEpisodeStatistics(cart_pole()), 475.0, ""),
        (lambda: gymnasium.make("Pendulum-v1"), None, None),
        (CartPoleEnv, None, None),
        (lambda: cart_pole(sutton_barto_reward=True), None, "sutton_barto_reward"),
        (lambda: cart_pole(max_episode_steps=200), None, "its time limit is 200 instead of 500"),
        (lambda: cart_pole().unwrapped, None, "its time limit is none"),
        (lambda: TransformReward(cart_pole(), lambda reward: reward / 10), None, "TransformReward may change"),
        (lambda: ClipReward(cart_pole(), 0, 1), None, "ClipReward may change"),
        (lambda: MaxAndSkipObservation(cart_pole()), None, "MaxAndSkipObservation may change"),
        (lambda: Penalised(cart_pole()), None, "Penalised may change"),
        (lambda: Brightened(Penalised(cart_pole())), None, "Penalised may change"),
    ],
)
def test_the_reward_threshold_of_gymnasium_counts_where_it_applies(maker, value, why):
    goal = registered_goal(maker())
    assert goal.value == value
    if why is None:
        assert goal.reason == "", "there is none"
    else:
        assert (why or "the reward_threshold of CartPole-v1") in goal.reason


def test_the_reward_threshold_applies_with_repeated_actions():
    for repeat in (1, 2):
        assert inspect_env(EnvConfig(id="gym:CartPole-v1", action_repeat=repeat)).goal.value == 475
