"""Gymnasium environments: the arrival convention, actions, going on after a restart, and every refusal."""

import contextlib
import itertools
import os
import sys
import tomllib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Space, Text, Tuple
from gymnasium.wrappers import (
    ClipReward,
    FlattenObservation,
    MaxAndSkipObservation,
    RecordEpisodeStatistics,
    TransformReward,
)

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import (
    SUITES,
    EnvError,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    VectorEnv,
    look_at,
    make_env,
    missing,
)
from dreamerjax.envs.goal import goal_of
from dreamerjax.types import ActionSpec, ObsSpec, Rows

ROOT = Path(__file__).parents[2]
CLASSIC = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"]
VECTOR = Box(-1.0, 1.0, (2,), np.float32)
BUTTON = Discrete(2)
ONE_HOT = np.eye(2, dtype=np.float32)


class Scripted(gymnasium.Env):
    """Plays back one observation for each step, and remembers the actions that it was given."""

    def __init__(self, observation_space: Space = VECTOR, action_space: Space = BUTTON, observations=(), reward=0.0):
        self.observation_space, self.action_space = observation_space, action_space
        self.observations, self.reward = observations, reward
        self.actions, self.keep = [], np.copy

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._next(), {}

    def step(self, action):
        self.actions.append(self.keep(action))
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


def make(env_id: str, *, num_envs: int, seed: int, **options) -> VectorEnv:
    return make_env(EnvConfig(id=env_id, **options), num_envs=num_envs, seed=seed)


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


def seeds_of(seed: int, num_envs: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(num_envs)]


@pytest.mark.parametrize("limit", [500, 7], ids=["terminated", "truncated"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_rows_are_arrivals_as_in_a_cartpole_stepped_by_hand(register, limit, num_envs):
    """Each copy's rows, against `gymnasium.make` stepped and reset by hand with the same actions."""
    env_id = register(gymnasium.spec("CartPole-v1").entry_point, limit=limit)
    env = make(env_id, num_envs=num_envs, seed=5)
    generator = np.random.default_rng(0)
    actions = [env.random_action(generator) for _ in range(120)]
    stream = [env.reset(), *(env.step(action) for action in actions)]

    for copy, seed in enumerate(seeds_of(5, num_envs)):
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
    env = make("gym:Pendulum-v1", num_envs=4, seed=0)
    assert env.spaces == ((ObsSpec("state", (3,)),), (ActionSpec("continuous", 1),))
    for rows in (env.reset(), env.step(np.zeros((4, 1), np.float32))):
        assert (rows.obs["state"].shape, rows.obs["state"].dtype) == ((4, 3), np.float32)
        assert (rows.prev_action.shape, rows.prev_action.dtype) == ((4, 1), np.float32)
        assert (rows.reward.shape, rows.reward.dtype) == ((4,), np.float32)
        assert all(flag.shape == (4,) and flag.dtype == bool for flag in rows[3:])


def test_rows_stay_as_they_were():
    env = make("gym:CartPole-v1", num_envs=2, seed=0)
    rows = env.reset()
    before = rows.obs["state"].copy()
    action = np.eye(2, dtype=np.float32)
    later = env.step(action)
    action[:] = 7.0
    np.testing.assert_array_equal(rows.obs["state"], before)
    np.testing.assert_array_equal(later.prev_action, np.eye(2))


def test_reset_starts_anew_and_copies_differ_whatever_their_number():
    env = make("gym:CartPole-v1", num_envs=3, seed=1)
    first = env.reset()
    env.step(env.random_action(np.random.default_rng(0)))
    assert_same(env.reset(), first)
    state = first.obs["state"]
    assert len(np.unique(state, axis=0)) == 3
    np.testing.assert_array_equal(make("gym:CartPole-v1", num_envs=1, seed=1).reset().obs["state"], state[:1])
    assert not np.array_equal(make("gym:CartPole-v1", num_envs=3, seed=2).reset().obs["state"], state)


def test_a_dictionary_of_vectors_keeps_its_names(register):
    space = Dict({"joints": Box(-9, 9, (3,), np.float64), "ram": Box(0, 255, (2,), np.uint8)})
    played = {"joints": np.arange(3.0), "ram": np.array([7, 255], np.uint8)}
    env = make(register(Scripted, observation_space=space, observations=[played]), num_envs=2, seed=0)
    assert env.spaces.obs == (ObsSpec("joints", (3,)), ObsSpec("ram", (2,)))
    rows = env.reset()
    np.testing.assert_array_equal(rows.obs["joints"], [[0, 1, 2]] * 2)
    np.testing.assert_array_equal(rows.obs["ram"], [[7, 255]] * 2)
    assert all(value.dtype == np.float32 for value in rows.obs.values())


def test_vectors_are_clipped_and_scaled_but_stored_as_chosen(register):
    space = Box(float32([-2.0, 0.1]), float32([2.0, 0.7]))
    scripted = Scripted(action_space=space)
    env = make(register(lambda: scripted), num_envs=1, seed=0)
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
    env = make(register(lambda: scripted), num_envs=1, seed=0)
    assert env.spaces.actions == (ActionSpec("discrete", 3),)
    env.reset()
    for choice in range(3):
        env.step(np.eye(3, dtype=np.float32)[[choice]])
    assert scripted.actions == [-1, 0, 1]


def test_random_actions():
    generator = np.random.default_rng(0)
    one_hot = make("gym:Acrobot-v1", num_envs=3000, seed=0).random_action(generator)
    assert one_hot.shape == (3000, 3)
    assert one_hot.dtype == np.float32
    assert ((one_hot == 0) | (one_hot == 1)).all()
    np.testing.assert_array_equal(one_hot.sum(axis=1), 1)
    assert (np.abs(one_hot.sum(axis=0) - 1000) < 150).all()
    vector = make("gym:Pendulum-v1", num_envs=3000, seed=0).random_action(generator)
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
    env = make(env_id, num_envs=2, seed=3)
    rows = env.reset()
    for _ in range(steps):
        rows = env.step(env.random_action(generator))
    assert rows.is_last.any() == (steps == 23 and name != "CartPole-v1")  # which rarely gets to the limit
    state = env.state()
    assert state is not None

    used = make(env_id, num_envs=2, seed=99)
    used.reset()
    fresh = make(env_id, num_envs=2, seed=99)
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
    env = make(register(entry_point), num_envs=1, seed=0)
    env.reset()
    assert env.state() is None


def test_a_state_of_something_else_is_refused():
    env = make("gym:CartPole-v1", num_envs=2, seed=0)
    for env_id, num_envs in (("gym:CartPole-v1", 3), ("gym:Acrobot-v1", 2)):
        other = make(env_id, num_envs=num_envs, seed=0).state()
        assert other is not None
        with pytest.raises(EnvError, match=f"is of {num_envs} copies of {env_id}, expected 2 of gym:CartPole-v1"):
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
        env = make("gym:my_task:MyTask-v0", num_envs=1, seed=0)
        assert env.reset().is_first.all()
    finally:
        gymnasium.registry.pop("MyTask-v0", None)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        (
            "Acrobot-v1",
            "The environment `Acrobot-v1` names no suite, expected {known}. Did you mean `gym:Acrobot-v1`?",
        ),
        (
            "cartpole-v1",
            "The environment `cartpole-v1` names no suite, expected {known}. Did you mean `gym:CartPole-v1`?",
        ),
        ("xyzzy", "The environment `xyzzy` names no suite, expected {known}."),
        ("", "The environment `` names no suite, expected {known}."),
        (
            "gim:CartPole-v1",
            "The environment `gim:CartPole-v1` has an unknown suite, 'gim', expected {known}. "
            "Did you mean `gym:CartPole-v1`?",
        ),
        ("gym:CartPool-v1", "Gymnasium knows no environment `CartPool-v1`. Did you mean `gym:CartPole-v1`?"),
        ("gym:CartPole", "Gymnasium knows no environment `CartPole`. Did you mean `gym:CartPole-v1`?"),
        ("gym:CartPole-v9", "Gymnasium knows no environment `CartPole-v9`. Did you mean `gym:CartPole-v1`?"),
        ("gym:xyzzy", "Gymnasium knows no environment `xyzzy`. Is the package that registers it installed?"),
        (
            "gym:no_such_module:A-v0",
            "gym:no_such_module:A-v0: the module `no_such_module` cannot be imported: No module named 'no_such_module'"
            "\n{nowhere}",
        ),
        (
            "no_such_module:A",
            "The environment `no_such_module:A` has an unknown suite, 'no_such_module', expected {known}.\n{nowhere}",
        ),
    ],
)
def test_unknown_environments(env_id, message):
    with pytest.raises(UnknownEnvironmentError) as caught:
        make(env_id, num_envs=1, seed=0)
    known = ", ".join(f"{family}:ID" for family in SUITES)
    nowhere = f"There is no `no_such_module` in this folder, {os.getcwd()}, nor among the installed packages."
    assert str(caught.value) == message.replace("{known}", f"{known}, or module:function of your own").replace(
        "{nowhere}", nowhere
    )


def test_a_missing_dependency_says_what_to_install(register):
    def entry_point():
        raise gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')

    with pytest.raises(UnknownEnvironmentError) as caught:
        make(register(entry_point), num_envs=1, seed=0)
    assert str(caught.value) == (
        'gym:Scripted-v0 cannot be made: Box2D is not installed, run `pip install "gymnasium[box2d]"`\n'
        'Install it: pip install "dreamerjax[box2d]"'
    )


@pytest.mark.parametrize(
    ("env_id", "absent", "extra"),
    [
        ("gym:LunarLander-v3", "Box2D", "box2d"),
        ("gym:CarRacing-v3", "Box2D", "box2d"),
        ("gym:HalfCheetah-v5", "mujoco", "mujoco"),
        ("gym:ALE/Pong-v5", "ale_py", "atari"),
        ("gym:ale_py:ALE/Pong-v5", "ale_py", "atari"),
        ("gym:MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("ale_py:make", "ale_py", "atari"),
        ("needy:imports_when_called", "mujoco", "mujoco"),
        ("needy:makes_lunar_lander", "Box2D", "box2d"),
        ("needs_crafter:Env", "crafter", "crafter"),
        ("needy:draws_nothing", "pygame", ""),
        ("gym:CartPole-v1", "pygame", ""),
        ("gym:FrozenLake-v1", "pygame", ""),
    ],
)
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path, env_id, absent, extra):
    (tmp_path / "needy.py").write_text(
        "import gymnasium\n"
        "def imports_when_called():\n    import mujoco\n"
        "def makes_lunar_lander():\n    return gymnasium.make('LunarLander-v3')\n"
        "def draws_nothing():\n    return gymnasium.make('Acrobot-v1', render_mode='rgb_array')\n"
    )
    (tmp_path / "needs_crafter.py").write_text("import crafter.engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("needy", "needs_crafter"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for module in [name for name in sys.modules if name.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, module)
    for module in [absent, *(name for name in sys.modules if name.startswith(f"{absent}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvError) as caught:
        make(env_id, num_envs=1, seed=0, obs="pixels" if absent == "pygame" else "auto")
    requirement = f'"dreamerjax[{extra}]"' if extra else "pygame"
    assert str(caught.value).splitlines()[-1] == f"Install it: pip install {requirement}"


def test_a_package_that_has_no_line_here_is_named(monkeypatch, tmp_path):
    (tmp_path / "needy_too.py").write_text("def env():\n    import no_such_simulator.arm\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvError) as caught:
        make("needy_too:env", num_envs=1, seed=0)
    assert str(caught.value).endswith("Install the package that has it, probably: pip install no_such_simulator")
    with pytest.raises(EnvError) as caught:
        make("needy_too.part:env", num_envs=1, seed=0)
    assert "install" not in str(caught.value), "the module is there, and has no such part"


def test_every_extra_that_is_named_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {f"dreamerjax[{name}]" for name in project["optional-dependencies"]}
    named = {*missing.MODULES.values(), *missing.EXTRAS.values(), *(family.install for family in SUITES.values())}
    assert named <= extras | {"pygame", "dreamerjax"}
    assert set(missing.REGISTERED_BY.values()) <= set(missing.MODULES)


# The return that counts as solved


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
        (lambda: cart_pole(max_episode_steps=200), None, "its time limit is 200 in place of 500"),
        (lambda: cart_pole().unwrapped, None, "its time limit is none"),
        (lambda: TransformReward(cart_pole(), lambda reward: reward / 10), None, "TransformReward may change"),
        (lambda: ClipReward(cart_pole(), 0, 1), None, "ClipReward may change"),
        (lambda: MaxAndSkipObservation(cart_pole()), None, "MaxAndSkipObservation may change"),
        (lambda: Penalised(cart_pole()), None, "Penalised may change"),
        (lambda: Brightened(Penalised(cart_pole())), None, "Penalised may change"),
    ],
)
def test_the_threshold_of_gymnasium_counts_where_it_holds(maker, value, why):
    goal = goal_of(maker())
    assert goal.value == value
    if why is None:
        assert goal.told == "", "there is none"
    else:
        assert (why or "the reward_threshold of CartPole-v1") in goal.told


def test_the_threshold_holds_for_repeated_actions_whose_rewards_add_up():
    for repeat in (1, 2):
        assert look_at(EnvConfig(id="gym:CartPole-v1", action_repeat=repeat)).goal.value == 475


CAMERA = Box(0, 255, (210, 160, 3), np.uint8)
SMALL = {"height": 32, "width": 48}


@pytest.mark.parametrize(
    ("space", "specs"),
    [
        (Box(-1, 1, (2, 2)), [ObsSpec("state", (4,))]),
        (Box(-1, 1, ()), [ObsSpec("state", (1,))]),
        (Box(-5, 5, (3,), np.int32), [ObsSpec("state", (3,), classes=11)]),
        (Box(-50, 50, (3,), np.int32), [ObsSpec("state", (3,))]),
        (Box(0, 1, (3,), bool), [ObsSpec("state", (3,), classes=2)]),
        (Discrete(5, start=-2), [ObsSpec("state", (), classes=5)]),
        (MultiDiscrete([2, 3]), [ObsSpec("state", (2,), classes=3)]),
        (MultiDiscrete(np.full((7, 7, 3), 11)), [ObsSpec("state", (7, 7, 3), classes=11)]),
        (MultiBinary((2, 2)), [ObsSpec("state", (2, 2), classes=2)]),
        (CAMERA, [ObsSpec("image", (32, 48, 3))]),
        (Box(0, 255, (84, 84), np.uint8), [ObsSpec("image", (32, 48, 1))]),
        (Box(0, 255, (84, 84, 5), np.uint8), [ObsSpec("image", (32, 48, 5))]),
        (Tuple([VECTOR, Discrete(3)]), [ObsSpec("0", (2,)), ObsSpec("1", (), classes=3)]),
        (
            Dict({"arm": Dict({"joints": VECTOR, "grip": Discrete(2)}), "eyes": Tuple([CAMERA, CAMERA])}),
            [
                ObsSpec("arm.grip", (), classes=2),
                ObsSpec("arm.joints", (2,)),
                ObsSpec("eyes.0", (32, 48, 3)),
                ObsSpec("eyes.1", (32, 48, 3)),
            ],
        ),
    ],
    ids=str,
)
def test_every_kind_of_observation_arrives_as_it_was(register, space, specs):
    space.seed(0)
    played = [space.sample() for _ in range(3)]
    env = make(
        register(Scripted, observation_space=space, observations=played), num_envs=2, seed=0, image=ImageConfig(**SMALL)
    )
    assert env.spaces.obs == tuple(specs)
    for rows, value in zip([env.reset(), env.step(ONE_HOT), env.step(ONE_HOT)], played, strict=True):
        for spec, (leaf, raw) in zip(specs, leaves(space, value), strict=True):
            seen = rows.obs[spec.name]
            assert (seen.shape, seen.dtype) == ((2, *spec.shape), spec.dtype)
            if spec.is_image:
                boxes = np.asarray(raw, np.float64).mean((0, 1))
                np.testing.assert_allclose(seen[0].mean((0, 1)), np.atleast_1d(boxes), atol=2.0)
            else:
                start = leaf.low if spec.classes and leaf.dtype.kind == "i" and isinstance(leaf, Box) else 0
                expected = np.asarray(raw) - getattr(leaf, "start", start)
                np.testing.assert_allclose(seen[1].reshape(np.shape(raw)), expected)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (Dict({"../x": VECTOR, " ": VECTOR, "n" * 300: VECTOR}), [" ", "../x", "n" * 300]),
        (Dict({"\ud800": VECTOR, "a\0b": VECTOR}), ["a\\0b", "\\ud800"]),
    ],
    ids=ascii,
)
def test_an_observation_may_have_any_name(register, space, names):
    space.seed(0)
    played = [space.sample()]
    env = make(register(Scripted, observation_space=space, observations=played), num_envs=1, seed=0)
    assert [spec.name for spec in env.spaces.obs] == names
    rows = env.reset()
    for spec, (_, raw) in zip(env.spaces.obs, leaves(space, played[0]), strict=True):
        if spec.is_vector:
            np.testing.assert_array_equal(rows.obs[spec.name][0], raw)


def leaves(space, value):
    """The leaves of a space beside those of its value, by Gymnasium's own order."""
    if isinstance(space, Dict):
        return [leaf for key in space.spaces for leaf in leaves(space[key], value[key])]
    if isinstance(space, Tuple):
        return [leaf for part, inner in zip(space.spaces, value, strict=True) for leaf in leaves(part, inner)]
    return [(space, value)]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Box(-1, 1, (0,)), "'state' is Box"),
        (Text(3), "'state' is Text("),
        (Sequence(VECTOR), "'state' is Sequence("),
        (Dict({"good": VECTOR, "nested": Dict({"words": Text(3)})}), "'nested.words' is Text("),
        (Discrete(100_000), "'state' is Discrete(100000)"),
        (Dict({}), "is an empty Dict"),
    ],
    ids=str,
)
def test_unsupported_observations_are_named(register, space, told):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make(register(Scripted, observation_space=space), num_envs=1, seed=0)
    message = str(caught.value)
    assert message.startswith(f"gym:Scripted-v0: the observation {told}")
    assert "Supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of those" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("space", "specs"),
    [
        (Discrete(4, start=2), [("discrete", 4)]),
        (MultiDiscrete([2, 3]), [("discrete", 2), ("discrete", 3)]),
        (MultiDiscrete([[2, 3], [4, 2]]), [("discrete", n) for n in (2, 3, 4, 2)]),
        (MultiBinary(3), [("discrete", 2)] * 3),
        (Box(-1, 1, (2, 2)), [("continuous", 4)]),
        (Box(-2, 3, (2,), np.int32), [("discrete", 6)] * 2),
        (
            Dict({"move": Box(float32([0, -9]), float32([1, 9])), "tool": Tuple([Discrete(3), MultiBinary(2)])}),
            [("continuous", 2), ("discrete", 3), ("discrete", 2), ("discrete", 2)],
        ),
    ],
    ids=str,
)
def test_every_kind_of_action_is_one_of_its_space_and_the_one_chosen(register, space, specs):
    scripted = Scripted(action_space=space)
    scripted.keep = lambda action: action  # as it was given, not as an array
    env = make(register(lambda: scripted), num_envs=1, seed=0)
    assert env.spaces.actions == tuple(ActionSpec(*spec) for spec in specs)
    env.reset()
    generator = np.random.default_rng(0)
    for _ in range(40):
        action = env.random_action(generator)
        rows = env.step(action)
        np.testing.assert_array_equal(rows.prev_action, action)
        given = scripted.actions[-1]
        assert space.contains(given), given
        # Part by part, the numbers that were chosen.
        parts, flat = np.split(action[0], np.cumsum([size for _, size in specs])[:-1]), []
        for leaf, value in leaves(space, given):
            value = np.asarray(value, np.float64)
            if leaf.dtype.kind == "f":
                value = 2 * (value - leaf.low) / (leaf.high - leaf.low) - 1
                flat.append(value.ravel())
            else:
                start = getattr(leaf, "start", 0) if not isinstance(leaf, Box) else leaf.low
                flat += [np.atleast_1d(choice) for choice in (value - start).ravel()]
        for (kind, _), part, chosen in zip(specs, parts, flat, strict=True):
            np.testing.assert_allclose(chosen, [part.argmax()] if kind == "discrete" else part, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Box(-np.inf, np.inf, (2,)), "the action is Box(-inf, inf, (2,), float32)"),
        (Box(float32([0, 0]), float32([1, np.inf])), "the action is Box(0.0, [ 1. inf], (2,), float32)"),
        (Box(0, 10_000, (1,), np.int32), "the action is Box(0, 10000, (1,), int32)"),
        (Text(3), "the action is Text("),
        (Dict({"move": BUTTON, "say": Tuple([Text(3)])}), "the action 'say.0' is Text("),
        (Dict({}), "the action is an empty Dict"),
    ],
    ids=str,
)
def test_unsupported_actions_are_named(register, space, told):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make(register(Scripted, action_space=space), num_envs=1, seed=0)
    message = str(caught.value)
    assert message.startswith(f"gym:Scripted-v0: {told}")
    assert "Supported are Discrete, MultiDiscrete, MultiBinary, Box with finite bounds" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300], ids=["nan", "infinite", "too large for float32"])
def test_observations_that_are_not_finite_are_told(register, bad):
    space = Box(-np.inf, np.inf, (2,), np.float64)
    observations = [np.zeros(2), np.zeros(2), np.array([0.0, bad])]
    env = make(register(Scripted, observation_space=space, observations=observations), num_envs=2, seed=0)
    action = np.eye(2, dtype=np.float32)
    env.reset()
    env.step(action)
    with pytest.raises(
        EnvError, match=r"gym:Scripted-v0: the observation 'state' is not finite: .* \(copy 0, step 2\)"
    ):
        env.step(action)


def test_rewards_and_actions_that_are_not_finite_are_told(register):
    env = make(register(Scripted, reward=float("nan")), num_envs=1, seed=0)
    env.reset()
    with pytest.raises(EnvError, match=r"gym:Scripted-v0: the reward is not finite: nan \(copy 0, step 1\)"):
        env.step(float32([[1, 0]]))
    with pytest.raises(EnvError, match=r"gym:Scripted-v0: the action is not finite: .* \(copy 0, step 2\)"):
        env.step(float32([[np.nan, 0]]))


def test_actions_of_another_shape_are_refused():
    env = make("gym:CartPole-v1", num_envs=2, seed=0)
    env.reset()
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \[num_envs, A\] = \(2, 2\)"):
        env.step(np.zeros(2, np.float32))
