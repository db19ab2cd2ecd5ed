"""Gymnasium environments: the arrival convention, actions, going on after a restart, and every refusal."""

import contextlib
import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple

from dreamerjax.host.envs import EnvError, UnknownEnvironmentError, UnsupportedSpaceError, make_env
from dreamerjax.types import ActionSpec, ObsSpec, Rows

CLASSIC = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"]
VECTOR = Box(-1.0, 1.0, (2,), np.float32)
BUTTON = Discrete(2)


class Scripted(gymnasium.Env):
    """Plays back one observation for each step, and remembers the actions that it was given."""

    def __init__(self, observation_space: Space = VECTOR, action_space: Space = BUTTON, observations=(), reward=0.0):
        self.observation_space, self.action_space = observation_space, action_space
        self.observations, self.reward = observations, reward
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._next(), {}

    def step(self, action):
        self.actions.append(np.copy(action))
        return self._next(), self.reward, False, False, {}

    def _next(self):
        played = len(self.actions)
        return self.observations[played] if played < len(self.observations) else self.observation_space.sample()


class Forgetful(Scripted, gymnasium.utils.EzPickle):
    """Its pickle holds only how it was made, like that of many simulators."""

    def __init__(self):
        gymnasium.utils.EzPickle.__init__(self)
        super().__init__()


class Unpicklable(Scripted):
    """Holds something that cannot be pickled."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stream = (value for value in ())


def float32(values) -> np.ndarray:
    return np.asarray(values, np.float32)


@pytest.fixture
def register():
    """Registers an environment for one test; returns its id."""
    with contextlib.ExitStack() as stack:

        def add(entry_point, *, name="Scripted-v0", limit=None, **kwargs) -> str:
            gymnasium.register(name, entry_point, max_episode_steps=limit, kwargs=kwargs)
            stack.callback(gymnasium.registry.pop, name)
            return f"gym:{name}"

        yield add


def assert_same(left: Rows, right: Rows) -> None:
    assert left.obs.keys() == right.obs.keys()
    for name in left.obs:
        np.testing.assert_array_equal(left.obs[name], right.obs[name])
    for one, other in zip(left[1:], right[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def seeds_of(seed: int, copies: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(copies)]


@pytest.mark.parametrize("limit", [500, 7], ids=["terminated", "truncated"])
@pytest.mark.parametrize("copies", [1, 3])
def test_rows_are_arrivals_as_in_a_cartpole_stepped_by_hand(register, limit, copies):
    """Each copy's rows, against `gymnasium.make` stepped and reset by hand with the same actions."""
    env_id = register(gymnasium.spec("CartPole-v1").entry_point, limit=limit)
    env = make_env(env_id, copies=copies, seed=5)
    generator = np.random.default_rng(0)
    actions = [env.random_action(generator) for _ in range(120)]
    stream = [env.reset(), *(env.step(action) for action in actions)]

    for copy, seed in enumerate(seeds_of(5, copies)):
        by_hand = gymnasium.make("CartPole-v1", max_episode_steps=limit)
        no_action, ends = np.zeros(2), 0
        row = (by_hand.reset(seed=seed)[0], no_action, 0.0, True, False, False)
        for rows, action in itertools.zip_longest(stream, actions):
            np.testing.assert_array_equal(rows.obs["state"][copy], row[0])
            np.testing.assert_array_equal(rows.prev_action[copy], row[1])
            assert tuple(array[copy] for array in rows[2:]) == row[2:]
            if action is None:
                break
            if rows.is_last[copy]:  # whatever the action, the next row is the first of a new episode
                ends += 1
                row = (by_hand.reset()[0], no_action, 0.0, True, False, False)
            else:
                observation, reward, terminated, truncated, _ = by_hand.step(action[copy].argmax())
                row = (observation, action[copy], reward, False, terminated or truncated, terminated)
        assert ends >= 3
    time_limits = [rows.is_last & ~rows.is_terminal for rows in stream]
    assert np.any(time_limits) == (limit == 7)


def test_rows_have_the_promised_shapes_and_dtypes():
    env = make_env("gym:Pendulum-v1", copies=4, seed=0)
    assert env.spaces == ((ObsSpec("state", (3,)),), ActionSpec("continuous", 1))
    for rows in (env.reset(), env.step(np.zeros((4, 1), np.float32))):
        assert (rows.obs["state"].shape, rows.obs["state"].dtype) == ((4, 3), np.float32)
        assert (rows.prev_action.shape, rows.prev_action.dtype) == ((4, 1), np.float32)
        assert (rows.reward.shape, rows.reward.dtype) == ((4,), np.float32)
        assert all(flag.shape == (4,) and flag.dtype == bool for flag in rows[3:])


def test_rows_stay_as_they_were():
    env = make_env("gym:CartPole-v1", copies=2, seed=0)
    rows = env.reset()
    before = rows.obs["state"].copy()
    action = np.eye(2, dtype=np.float32)
    later = env.step(action)
    action[:] = 7.0
    np.testing.assert_array_equal(rows.obs["state"], before)
    np.testing.assert_array_equal(later.prev_action, np.eye(2))


def test_reset_starts_anew_and_copies_differ_whatever_their_number():
    env = make_env("gym:CartPole-v1", copies=3, seed=1)
    first = env.reset()
    env.step(env.random_action(np.random.default_rng(0)))
    assert_same(env.reset(), first)
    state = first.obs["state"]
    assert len(np.unique(state, axis=0)) == 3
    np.testing.assert_array_equal(make_env("gym:CartPole-v1", copies=1, seed=1).reset().obs["state"], state[:1])
    assert not np.array_equal(make_env("gym:CartPole-v1", copies=3, seed=2).reset().obs["state"], state)


def test_a_dictionary_of_vectors_keeps_its_names(register):
    space = Dict({"joints": Box(-9, 9, (3,), np.float64), "ram": Box(0, 255, (2,), np.uint8)})
    played = {"joints": np.arange(3.0), "ram": np.array([7, 255], np.uint8)}
    env = make_env(register(Scripted, observation_space=space, observations=[played]), copies=2, seed=0)
    assert env.spaces.obs == (ObsSpec("joints", (3,)), ObsSpec("ram", (2,)))
    rows = env.reset()
    np.testing.assert_array_equal(rows.obs["joints"], [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(rows.obs["ram"], [[7, 255]] * 2)
    assert all(value.dtype == np.float32 for value in rows.obs.values())


def test_vectors_are_clipped_and_scaled_but_stored_as_chosen(register):
    space = Box(float32([-2.0, 0.1]), float32([2.0, 0.7]))
    scripted = Scripted(action_space=space)
    env = make_env(register(lambda: scripted), copies=1, seed=0)
    env.reset()
    table = {  # the agent's action -> the environment's
        (-1.0, -1.0): (-2.0, 0.1),
        (0.0, 0.0): (0.0, 0.4),
        (0.5, -0.5): (1.0, 0.25),
        (1.0, 1.0): (2.0, 0.7),
        (-3.0, 5.0): (-2.0, 0.7),
        (3e38, -3e38): (2.0, 0.1),
    }
    for action in table:
        rows = env.step(float32([action]))
        np.testing.assert_array_equal(rows.prev_action, float32([action]))
    np.testing.assert_allclose(scripted.actions, float32(list(table.values())), rtol=1e-6)
    assert all(space.contains(action) for action in scripted.actions)  # never past a bound, not even by rounding


def test_one_hot_actions_count_from_the_start_of_the_space(register):
    scripted = Scripted(action_space=Discrete(3, start=-1))
    env = make_env(register(lambda: scripted), copies=1, seed=0)
    assert env.spaces.action == ActionSpec("discrete", 3)
    env.reset()
    for choice in range(3):
        env.step(np.eye(3, dtype=np.float32)[[choice]])
    assert scripted.actions == [-1, 0, 1]


def test_random_actions():
    generator = np.random.default_rng(0)
    one_hot = make_env("gym:Acrobot-v1", copies=3000, seed=0).random_action(generator)
    assert one_hot.shape == (3000, 3)
    assert one_hot.dtype == np.float32
    assert ((one_hot == 0) | (one_hot == 1)).all()
    np.testing.assert_array_equal(one_hot.sum(axis=1), 1)
    assert (np.abs(one_hot.sum(axis=0) - 1000) < 150).all()
    vector = make_env("gym:Pendulum-v1", copies=3000, seed=0).random_action(generator)
    assert vector.shape == (3000, 1)
    assert vector.dtype == np.float32
    quarters = np.histogram(vector, bins=[-1, -0.5, 0, 0.5, 1])[0]
    assert quarters.sum() == 3000
    assert (np.abs(quarters - 750) < 150).all()


@pytest.mark.parametrize("steps", [0, 10, 23], ids=["at the start", "in an episode", "between an end and its reset"])
@pytest.mark.parametrize("name", CLASSIC)
def test_going_on_after_a_restart_is_exact(register, name, steps):
    """Over several episode ends, so that the random resets are the same ones, too."""
    env_id = register(gymnasium.spec(name).entry_point, limit=23)
    generator = np.random.default_rng(0)
    env = make_env(env_id, copies=2, seed=3)
    rows = env.reset()
    for _ in range(steps):
        rows = env.step(env.random_action(generator))
    assert rows.is_last.any() == (steps == 23 and name != "CartPole-v1")  # which rarely gets to the limit
    state = env.state()
    assert state is not None

    used = make_env(env_id, copies=2, seed=99)
    used.reset()
    fresh = make_env(env_id, copies=2, seed=99)
    others = [fresh, used]
    for other in others:
        other.load(state)
    starts = 0
    for _ in range(80):
        action = env.random_action(generator)
        rows = env.step(action)
        starts += rows.is_first.sum()
        for other in others:
            assert_same(other.step(action), rows)
    assert starts >= 6


@pytest.mark.parametrize("entry_point", [Forgetful, Unpicklable])
def test_environments_that_cannot_be_saved_say_so(register, entry_point):
    env = make_env(register(entry_point), copies=1, seed=0)
    env.reset()
    assert env.state() is None


def test_a_state_of_something_else_is_refused():
    env = make_env("gym:CartPole-v1", copies=2, seed=0)
    for env_id, copies in (("gym:CartPole-v1", 3), ("gym:Acrobot-v1", 2)):
        other = make_env(env_id, copies=copies, seed=0).state()
        assert other is not None
        with pytest.raises(EnvError, match=f"is of {copies} copies of {env_id}, expected 2 of gym:CartPole-v1"):
            env.load(other)
    state = env.state()
    assert state is not None
    for damaged in (b"", b"nonsense", state[:-40]):
        with pytest.raises(EnvError, match="saved state of gym:CartPole-v1 cannot be read"):
            env.load(damaged)


def test_the_users_own_module(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MyTask-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        env = make_env("gym:my_task:MyTask-v0", copies=1, seed=0)
        assert env.reset().is_first.all()
    finally:
        gymnasium.registry.pop("MyTask-v0", None)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Acrobot-v1", "The environment `Acrobot-v1` names no family, expected gym:ID. Did you mean `gym:Acrobot-v1`?"),
        (
            "cartpole-v1",
            "The environment `cartpole-v1` names no family, expected gym:ID. Did you mean `gym:CartPole-v1`?",
        ),
        ("xyzzy", "The environment `xyzzy` names no family, expected gym:ID."),
        ("", "The environment `` names no family, expected gym:ID."),
        (
            "gim:CartPole-v1",
            "The environment `gim:CartPole-v1` has an unknown family, 'gim', expected gym:ID. "
            "Did you mean `gym:CartPole-v1`?",
        ),
        ("gym:CartPool-v1", "Gymnasium knows no environment `CartPool-v1`. Did you mean `gym:CartPole-v1`?"),
        ("gym:CartPole", "Gymnasium knows no environment `CartPole`. Did you mean `gym:CartPole-v1`?"),
        ("gym:CartPole-v9", "Gymnasium knows no environment `CartPole-v9`. Did you mean `gym:CartPole-v1`?"),
        ("gym:xyzzy", "Gymnasium knows no environment `xyzzy`. Is the package that registers it installed?"),
        (
            "gym:no_such_module:A-v0",
            "gym:no_such_module:A-v0: the module `no_such_module` cannot be imported: No module named 'no_such_module'",
        ),
    ],
)
def test_unknown_environments(env_id, message):
    with pytest.raises(UnknownEnvironmentError) as caught:
        make_env(env_id, copies=1, seed=0)
    assert str(caught.value) == message


def test_a_missing_dependency_says_what_to_install(register):
    def entry_point():
        raise gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')

    with pytest.raises(UnknownEnvironmentError) as caught:
        make_env(register(entry_point), copies=1, seed=0)
    assert str(caught.value) == (
        'gym:Scripted-v0 cannot be made: Box2D is not installed, run `pip install "gymnasium[box2d]"`'
    )


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Box(0, 255, (8, 8, 3), np.uint8), "'state' is Box(0, 255, (8, 8, 3), uint8)"),
        (Box(-1, 1, (2, 2)), "'state' is Box(-1.0, 1.0, (2, 2), float32)"),
        (Box(-1, 1, ()), "'state' is Box(-1.0, 1.0, (), float32)"),
        (Box(-1, 1, (0,)), "'state' is Box"),
        (Discrete(5), "'state' is Discrete(5)"),
        (MultiDiscrete([2, 3]), "'state' is MultiDiscrete([2 3])"),
        (MultiBinary(4), "'state' is MultiBinary(4)"),
        (Tuple([VECTOR, VECTOR]), "'state' is Tuple(Box(-1.0, 1.0, (2,), float32), Box(-1.0, 1.0, (2,), float32))"),
        (Dict({"good": VECTOR, "nested": Dict({"deep": VECTOR})}), "'nested' is Dict('deep': Box"),
        (Dict({"good": VECTOR, "count": Discrete(3)}), "'count' is Discrete(3)"),
    ],
    ids=str,
)
def test_unsupported_observations_are_named(register, space, told):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make_env(register(Scripted, observation_space=space), copies=1, seed=0)
    message = str(caught.value)
    assert message.startswith(f"gym:Scripted-v0: the observation {told}")
    assert "Supported are a Box of rank 1 and a Dict of those" in message
    assert message.count("\n") == 1


def test_an_empty_dictionary_is_refused(register):
    with pytest.raises(UnsupportedSpaceError, match="gym:Scripted-v0: the observation is an empty Dict"):
        make_env(register(Scripted, observation_space=Dict({})), copies=1, seed=0)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Box(-np.inf, np.inf, (2,)), "Box(-inf, inf, (2,), float32)"),
        (Box(float32([0, 0]), float32([1, np.inf])), "Box(0.0, [ 1. inf], (2,), float32)"),
        (Box(-1, 1, (2, 2)), "Box(-1.0, 1.0, (2, 2), float32)"),
        (Box(0, 3, (1,), np.int32), "Box(0, 3, (1,), int32)"),
        (MultiDiscrete([2, 3]), "MultiDiscrete([2 3])"),
        (MultiBinary(4), "MultiBinary(4)"),
        (Text(3), "Text("),
        (Dict({"move": BUTTON}), "Dict('move': Discrete(2))"),
    ],
    ids=str,
)
def test_unsupported_actions_are_named(register, space, told):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make_env(register(Scripted, action_space=space), copies=1, seed=0)
    message = str(caught.value)
    assert message.startswith(f"gym:Scripted-v0: the action is {told}")
    assert "Supported are Discrete and a float Box of rank 1 with finite bounds." in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300], ids=["nan", "infinite", "too large for float32"])
def test_observations_that_are_not_finite_are_told(register, bad):
    space = Box(-np.inf, np.inf, (2,), np.float64)
    observations = [np.zeros(2), np.zeros(2), np.array([0.0, bad])]
    env = make_env(register(Scripted, observation_space=space, observations=observations), copies=2, seed=0)
    action = np.eye(2, dtype=np.float32)
    env.reset()
    env.step(action)
    with pytest.raises(EnvError, match="gym:Scripted-v0: the observation 'state' of copy 0 is not finite at step 2"):
        env.step(action)


def test_rewards_and_actions_that_are_not_finite_are_told(register):
    env = make_env(register(Scripted, reward=float("nan")), copies=1, seed=0)
    env.reset()
    with pytest.raises(EnvError, match="gym:Scripted-v0: the reward of copy 0 is not finite at step 1: nan"):
        env.step(float32([[1, 0]]))
    with pytest.raises(EnvError, match="gym:Scripted-v0: the action of copy 0 is not finite at step 2"):
        env.step(float32([[np.nan, 0]]))


def test_actions_of_another_shape_are_refused():
    env = make_env("gym:CartPole-v1", copies=2, seed=0)
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \[copies, A\] = \(2, 2\)"):
        env.step(np.zeros(2, np.float32))
