"""The collector: every row lands in the replay as it arrived, and what is counted is what was played."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from dreamerjax.agent.agent import Agent, build_agent, init_train_state
from dreamerjax.agent.policy import initial_policy_state
from dreamerjax.config import AgentConfig, Config, EnvConfig, resolve
from dreamerjax.envs import VectorEnv, make_env
from dreamerjax.replay.disk import DiskRing
from dreamerjax.replay.replay import Replay
from dreamerjax.replay.ring import Ring
from dreamerjax.training import collector
from dreamerjax.training.collector import Collector, EpisodeCounter, EpisodeStats
from dreamerjax.types import Params, Spaces
from tests.tiny import MODEL, random_like

CAPACITY = 10_000


class Clock(gymnasium.Env):
    """Observes (episode, time, the last action); a reward of 10 x time + action; episodes of 2, 3, 4, ... steps."""

    observation_space, action_space = Box(-np.inf, np.inf, (3,), np.float32), Discrete(3)
    episode = 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode += 1
        self.time = 0
        return np.float32([self.episode, 0, -1]), {}

    def step(self, action: int) -> Any:
        self.time += 1
        over = self.time == self.episode
        by_time_limit = self.episode % 2 == 1
        reward = 10.0 * self.time + action
        return np.float32([self.episode, self.time, action]), reward, over and not by_time_limit, over, {}


class ForgetfulClock(Clock, gymnasium.utils.EzPickle):
    """Cannot be saved: its pickle says only how it was made."""

    def __init__(self) -> None:
        gymnasium.utils.EzPickle.__init__(self)
        super().__init__()


@pytest.fixture(scope="module", autouse=True)
def clocks() -> Iterator[None]:
    gymnasium.register("Clock-v0", Clock)
    gymnasium.register("ForgetfulClock-v0", ForgetfulClock)
    yield
    del gymnasium.registry["Clock-v0"], gymnasium.registry["ForgetfulClock-v0"]


def tiny_agent(spaces: Spaces, precision: Any = "float32") -> Agent:
    return build_agent(resolve(Config(agent=AgentConfig(model=MODEL, precision=precision))).agent, spaces)


def any_params(agent: Agent) -> Params:
    """Small random parameters, without the time that a real initialisation takes to compile."""
    shapes = jax.eval_shape(lambda key: init_train_state(agent, key), jax.random.PRNGKey(0)).params
    return random_like(shapes, scale=0.3)


def make(
    env_id: str = "gym:Clock-v0", *, num_envs: int = 1, seed: int = 0, precision: str = "float32"
) -> tuple[Collector, Replay, VectorEnv]:
    env = make_env(EnvConfig(id=env_id), num_envs=num_envs, seed=seed)
    replay = Replay(Ring(env.spaces, num_envs=num_envs, capacity=CAPACITY), seed=seed)
    return Collector(tiny_agent(env.spaces, precision), env, replay, seed=seed), replay, env


def stored(replay: Replay) -> dict[str, np.ndarray]:
    """The rows in the order in which they came, name -> [rows, copies, ...]."""
    return {name: array.copy() for name, array in replay.state()[0].items()}


@pytest.mark.parametrize("num_envs", [1, 3])
def test_rows_are_stored_on_arrival(num_envs: int) -> None:
    collector, replay, _ = make(num_envs=num_envs)
    for _ in range(30):
        collector.step(None)
    rows = stored(replay)
    assert len(rows["reward"]) == 31, "the first row, and one for each step"
    episode, time, action = np.moveaxis(rows["obs.state"], -1, 0)
    assert rows["is_first"][0].all()
    np.testing.assert_array_equal(rows["is_first"], time == 0)
    np.testing.assert_array_equal(rows["is_last"], time == episode)
    np.testing.assert_array_equal(rows["is_terminal"], rows["is_last"] & (episode % 2 == 0))
    taken = np.eye(3)[action.astype(int)] * ~rows["is_first"][..., None]
    np.testing.assert_array_equal(rows["prev_action"], taken)
    np.testing.assert_array_equal(rows["reward"], np.where(rows["is_first"], 0, 10 * time + action))
    assert len(np.unique(action)) == 4, "each action is tried, and -1 stands for none"


@pytest.mark.parametrize("num_envs", [1, 3])
def test_environment_steps_are_actions_and_not_rows(num_envs: int) -> None:
    collector, replay, _ = make(num_envs=num_envs)
    assert collector.env_steps == 0
    for _ in range(20):
        collector.step(None)
        assert collector.env_steps == (~stored(replay)["is_first"]).sum()
    assert collector.env_steps < 20 * num_envs


def test_finished_episodes_are_returned_with_what_they_earned() -> None:
    collector, replay, _ = make(num_envs=2)
    finished = [collector.step(None) for _ in range(40)]
    rows = stored(replay)
    for step, episodes in enumerate(finished, start=1):
        expected = []
        for copy in np.flatnonzero(rows["is_last"][step]):
            length = int(rows["obs.state"][step, copy, 1])
            earned = rows["reward"][step - length : step + 1, copy].sum(dtype=np.float64)
            expected.append(EpisodeStats(float(earned), length))
        assert episodes == expected
    assert [episode.length for episode in itertools.chain(*finished)][:4] == [2, 2, 3, 3]


def test_the_policy_sees_the_newest_rows_and_its_action_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def policy(params: Any, state: Any, obs: Any, is_first: Any, key: Any) -> Any:
        calls.append((params, state, obs["state"].copy(), is_first.copy(), key))
        return state + 1, jnp.float32([[0, 0, 1], [0, 1, 0]]), key + 1

    monkeypatch.setattr(collector, "jit_policy", lambda agent: policy)
    monkeypatch.setattr(collector, "initial_policy_state", lambda agent, num_envs: 100)
    one, replay, _ = make(num_envs=2)
    for _ in range(6):
        one.step("the parameters")  # type: ignore[arg-type]
    rows = stored(replay)
    for row, (params, state, obs, is_first, key) in enumerate(calls):
        assert (params, state) == ("the parameters", 100 + row)
        np.testing.assert_array_equal(obs, rows["obs.state"][row])
        np.testing.assert_array_equal(is_first, rows["is_first"][row])
        np.testing.assert_array_equal(key, calls[0][4] + row)
    acted = rows["obs.state"][:, :, 1] > 0
    for copy, action in enumerate((2, 1)):
        assert (rows["obs.state"][acted[:, copy], copy, 2] == action).all()
    assert is_first.any() or rows["is_first"][1:].any(), "an episode began on the way"


def test_the_first_row_of_an_episode_makes_the_policy_forget() -> None:
    """What it remembers of the episode before must not change what it does in the next."""
    env = make_env(EnvConfig(id="gym:CartPole-v1"), num_envs=1, seed=0)
    agent = tiny_agent(env.spaces)
    params = any_params(agent)
    policy = collector.jit_policy(agent)
    fresh = initial_policy_state(agent, 1)
    used = jax.tree.map(lambda x: x + 1, fresh)
    obs, first, key = {"state": np.ones((1, 4), np.float32)}, np.ones(1, bool), jax.random.PRNGKey(1)
    left, right = (policy(params, state, obs, first, key) for state in (fresh, used))
    jax.tree.map(np.testing.assert_array_equal, left, right)
    assert not np.array_equal(left[2], key), "the key has moved on"


def test_a_seed_decides_what_is_collected() -> None:
    runs = []
    for seed in (0, 0, 1):
        one, replay, _ = make("gym:CartPole-v1", num_envs=2, seed=seed)
        for _ in range(20):
            one.step(None)
        runs.append(stored(replay))
    for name in runs[0]:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])
    assert not np.array_equal(runs[0]["obs.state"], runs[2]["obs.state"])
    assert not np.array_equal(runs[0]["prev_action"], runs[2]["prev_action"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_goes_on_exactly_where_it_was_saved(precision: str) -> None:
    one, replay, env = make("gym:CartPole-v1", num_envs=2, precision=precision)
    params = any_params(tiny_agent(env.spaces, precision))
    for index in range(15):
        one.step(params if index % 2 else None)
    (arrays, meta, env_state), (rows, replay_meta) = one.state(), replay.state()
    arrays, rows = ({name: array.copy() for name, array in group.items()} for group in (arrays, rows))
    assert all(array.dtype in (np.float32, np.float64, np.int64, np.uint32, bool) for array in arrays.values())

    other, other_replay, _ = make("gym:CartPole-v1", num_envs=2, seed=5, precision=precision)
    other_replay.load(rows, replay_meta)
    assert other.load(arrays, meta, env_state) == ""
    assert other.env_steps == one.env_steps
    for index in range(25):
        acting = params if index % 3 else None
        assert one.step(acting) == other.step(acting)
    assert one.env_steps == other.env_steps
    after, other_after = stored(replay), stored(other_replay)
    for name in after:
        np.testing.assert_array_equal(after[name], other_after[name])


def test_a_resumed_replay_on_the_disk_keeps_its_rows(tmp_path: Path) -> None:
    def begin(seed: int) -> tuple[Collector, Replay]:
        env = make_env(EnvConfig(id="gym:CartPole-v1"), num_envs=1, seed=seed)
        ring = DiskRing(env.spaces, folder=tmp_path, num_envs=1, capacity=20)
        replay = Replay(ring, seed=seed)
        return Collector(tiny_agent(env.spaces), env, replay, seed=seed), replay

    one, replay = begin(0)
    assert len(replay) == 0, "nothing before the first step"
    for _ in range(30):
        one.step(None)
    (arrays, meta, env_state), (rows, replay_meta) = one.state(), replay.state()
    rows = {name: array.copy() for name, array in rows.items()}
    other, resumed = begin(1)
    resumed.load(rows, replay_meta)
    assert other.load(arrays, meta, env_state) == ""
    assert len(resumed) == 20
    other.step(None)
    assert resumed.rows_added == 32


def test_a_recurrent_state_that_was_saved_in_blocks_is_understood() -> None:
    one, _, env = make("gym:CartPole-v1", num_envs=3)
    other, _, _ = make("gym:CartPole-v1", num_envs=3, seed=5)
    params = any_params(tiny_agent(env.spaces))
    for _ in range(4):
        one.step(params)
    arrays, meta, env_state = one.state()
    deter = arrays["policy0"]  # [B, D]
    assert np.ptp(deter) > 0
    in_blocks = np.moveaxis(deter.reshape(3, MODEL.blocks, -1), 1, 0)  # [G, B, D/G], as before
    assert other.load(arrays | {"policy0": in_blocks}, meta, env_state) == ""
    np.testing.assert_array_equal(other.state()[0]["policy0"], deter)


def test_an_environment_that_cannot_be_saved_starts_new_episodes() -> None:
    one, replay, _ = make("gym:ForgetfulClock-v0", num_envs=2)
    for _ in range(10):
        one.step(None)
    (arrays, meta, env_state), (rows, replay_meta) = one.state(), replay.state()
    assert env_state == b""
    assert not rows["is_last"][-1].any(), "in the middle of an episode"

    other, other_replay, _ = make("gym:ForgetfulClock-v0", num_envs=2)
    other_replay.load(rows, replay_meta)
    assert other.load(arrays, meta, env_state) == "the environments cannot be saved"
    assert other.env_steps == one.env_steps
    finished = list(itertools.chain.from_iterable(other.step(None) for _ in range(5)))
    after = stored(other_replay)
    np.testing.assert_array_equal(after["is_last"][10], [True, True])
    np.testing.assert_array_equal(after["is_terminal"][10], [False, False])
    np.testing.assert_array_equal(after["is_first"][11], [True, True])
    assert len(after["reward"]) == 11 + 1 + 5
    for episode in finished:
        rewards = after["reward"][12 : 12 + episode.length].sum(0)
        assert episode.ret in rewards, "nothing of the episode that was cut counts"


def test_episode_counter_by_hand() -> None:
    counter = EpisodeCounter(2)
    no, yes = np.array([False, False]), np.array([True, True])
    assert counter.add(np.array([1.0, 2.0]), no, no) == []
    assert counter.add(np.array([1.0, 2.0]), no, np.array([False, True])) == [(1, EpisodeStats(4.0, 2))]
    assert counter.add(np.array([1.0, 0.0]), np.array([False, True]), no) == []
    assert counter.add(np.array([1.0, 5.0]), no, yes) == [(0, EpisodeStats(4.0, 4)), (1, EpisodeStats(5.0, 1))]
