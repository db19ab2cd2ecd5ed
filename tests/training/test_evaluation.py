"""Evaluation: whole episodes, a fixed share for every copy, and the same numbers for the same seed."""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.config import AgentConfig, Config, EnvConfig, resolve
from dreamerjax.envs import make_env
from dreamerjax.training import evaluation
from dreamerjax.training.evaluation import Evaluation, Evaluator, Onlooker
from dreamerjax.types import Params
from tests.tiny import MODEL, random_like


class Uneven(gymnasium.Env):
    """Copy c plays episodes of 1 + 20 c steps, each worth c in all: the short ones are the bad ones."""

    observation_space, action_space = Box(-1.0, 1.0, (1,), np.float32), Discrete(2)
    made: ClassVar[list["Uneven"]] = []

    def __init__(self) -> None:
        self.copy = len(self.made)
        self.made.append(self)
        self.begun = self.steps = 0
        self.closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.begun += 1
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        self.time += 1
        self.steps += 1
        over = self.time == 1 + 20 * self.copy
        return np.zeros(1, np.float32), float(self.copy * over), over, False, {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def uneven() -> Iterator[str]:
    gymnasium.register("Uneven-v0", Uneven)
    Uneven.made.clear()
    yield "gym:Uneven-v0"
    del gymnasium.registry["Uneven-v0"]


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A policy that always takes the first action; returns how it was asked for."""
    asked = []

    def make(agent: Agent, *, greedy: bool) -> Any:
        asked.append(greedy)
        return lambda params, state, obs, is_first, key: (state, jnp.eye(2)[np.zeros(len(is_first), int)], key)

    monkeypatch.setattr(evaluation, "greedy_policy", lambda agent: make(agent, greedy=True))
    monkeypatch.setattr(evaluation, "initial_policy_state", lambda agent, num_envs: None)
    return asked


def tiny(env_id: str) -> tuple[Agent, Params]:
    """An agent with small random parameters, without the time that a real initialisation takes to compile."""
    env = make_env(EnvConfig(id=env_id), num_envs=1, seed=0)
    agent = build_agent(resolve(Config(agent=AgentConfig(model=MODEL, precision="float32"))).agent, env.spaces)
    env.close()
    shapes = jax.eval_shape(lambda key: init_train_state(agent, key), jax.random.PRNGKey(0)).params
    return agent, random_like(shapes, scale=0.3)


NO_AGENT: Any = None


@pytest.mark.parametrize(
    ("episodes", "num_envs", "shares"),
    [(8, 4, [2, 2, 2, 2]), (10, 4, [3, 3, 2, 2]), (2, 4, [1, 1, 0, 0]), (5, 1, [5]), (1, 1, [1])],
)
def test_every_copy_plays_its_share(
    uneven: str, without_network: list[bool], episodes: int, num_envs: int, shares: list[int]
) -> None:
    """The first episodes to end would nearly all be of copy 0, and the mean far too low."""
    evaluation = Evaluator(NO_AGENT, EnvConfig(id=uneven), num_envs=num_envs).run(NO_AGENT, episodes=episodes, seed=0)
    assert evaluation is not None
    returns = np.repeat(np.arange(num_envs), shares).astype(float)
    assert len(returns) == episodes
    expected = Evaluation(
        episodes=episodes,
        return_mean=returns.mean(),
        return_std=returns.std(),
        return_min=returns.min(),
        return_max=returns.max(),
        length_mean=(1 + 20 * returns).mean(),
    )
    assert evaluation._asdict() == pytest.approx(expected._asdict())


def test_it_ends_with_the_last_episode(uneven: str, without_network: list[bool]) -> None:
    Evaluator(NO_AGENT, EnvConfig(id=uneven), num_envs=3).run(NO_AGENT, episodes=6, seed=0)
    assert Uneven.made[2].steps == 2 * 41, "whole episodes, and not a step more"


def test_the_policy_is_greedy(without_network: list[bool]) -> None:
    Evaluator(NO_AGENT, EnvConfig(id="gym:CartPole-v1"), num_envs=1)
    assert without_network == [True]


def test_environments_are_made_once_and_only_when_needed(uneven: str, without_network: list[bool]) -> None:
    evaluator = Evaluator(NO_AGENT, EnvConfig(id=uneven), num_envs=2)
    assert Uneven.made == []
    evaluator.close()
    first = evaluator.run(NO_AGENT, episodes=4, seed=0)
    second = evaluator.run(NO_AGENT, episodes=4, seed=1)
    assert first == second, "the second does not go on with the episodes of the first"
    assert len(Uneven.made) == 2
    evaluator.close()
    assert all(env.closed for env in Uneven.made)
    evaluator.close()


def test_it_can_be_interrupted_at_any_step_and_begun_again(uneven: str, without_network: list[bool]) -> None:
    evaluator = Evaluator(NO_AGENT, EnvConfig(id=uneven), num_envs=2)
    whole = evaluator.run(NO_AGENT, episodes=2, seed=0)
    looks = itertools.count()
    onlooker = Onlooker()
    onlooker.interrupted = lambda: next(looks) == 10
    assert evaluator.run(NO_AGENT, episodes=2, seed=0, onlooker=onlooker) is None
    assert next(looks) == 11, "asked at each step"
    assert evaluator.run(NO_AGENT, episodes=2, seed=0) == whole


def test_the_seed_decides_the_result() -> None:
    """Pendulum's returns are real numbers, which are not the same by chance; and its actions are vectors."""
    agent, params = tiny("gym:Pendulum-v1")
    evaluator = Evaluator(agent, EnvConfig(id="gym:Pendulum-v1"), num_envs=2)
    first, again, other = (evaluator.run(params, episodes=2, seed=seed) for seed in (0, 0, 1))
    assert first is not None
    assert other is not None
    assert first == again
    assert first == Evaluator(agent, EnvConfig(id="gym:Pendulum-v1"), num_envs=2).run(params, episodes=2, seed=0)
    assert first.return_mean != other.return_mean
    assert first.length_mean == other.length_mean == 200
    assert first.return_min < first.return_mean < first.return_max < 0


def test_the_parameters_decide_the_result() -> None:
    agent, params = tiny("gym:CartPole-v1")
    evaluator = Evaluator(agent, EnvConfig(id="gym:CartPole-v1"), num_envs=5)
    for push in ([100.0, 0.0], [0.0, 100.0]):
        actor = jax.tree.map(lambda x, push=push: jnp.float32(push) if x.shape == (2,) else x, params.actor)
        evaluation = evaluator.run(params.replace(actor=actor), episodes=10, seed=0)
        assert evaluation is not None
        assert evaluation.return_max <= 11, "always the same push: the pole falls at once"
        assert evaluation.return_mean == evaluation.length_mean
