"""Environments that deviate from Gymnasium's API: what is accepted, what is reported once, and what stops a run."""

import functools
import re
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Text, Tuple

from dreamerjax.config import ConfigError, EnvConfig, ImageConfig
from dreamerjax.envs import EnvError, EnvFailureError, StateError, UnsupportedSpaceError, make_env
from dreamerjax.envs.serial import TRIES, SerialVectorEnv

LEFT = np.float32([[1, 0]])
VECTOR = Box(-1.0, 1.0, (3,), np.float32)


class Counting(gymnasium.Env):
    """Observes its step three times; an episode has nine steps. Its return values can be replaced."""

    observation_space, action_space = Box(-np.inf, np.inf, (3,), np.float32), Discrete(2)

    def __init__(self, **given):
        vars(self).update(given)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.give("see", np.full(3, 0.0, np.float32)), {}

    def step(self, action):
        self.time += 1
        obs = self.give("see", np.full(3, self.time, np.float32))
        info = self.give("info", {})
        return obs, self.give("pay", 1.0), self.give("terminated", self.time == 9), self.give("truncated", False), info

    def give(self, name, otherwise):
        given = vars(self).get(name, otherwise)
        return given(self.time) if callable(given) else given


def serial(env, **config) -> SerialVectorEnv:
    return SerialVectorEnv(EnvConfig(id="module:Env", **config), num_envs=1, seed=0, envs=[env])


def played(env, steps=1) -> SimpleNamespace:
    """All rows, and the notes of the events."""
    rows = [env.reset(), *(env.step(LEFT) for _ in range(steps))]
    events = env.take_events()
    notes = [event.note for event in events if event.note]
    return SimpleNamespace(rows=rows, events=events, notes=notes, last=rows[-1])


# Bounds


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (VECTOR, [0, 1.5, 0], "number 1 is 1.5, declared -1 to 1"),
        (VECTOR, [-3e30, 0, 0], "number 0 is -3e+30, declared -1 to 1"),
        (Box(0, 1, (2, 2)), np.full((2, 2), 2.0), "number 0, 0 is 2, declared 0 to 1"),
        (Box(np.float32([0, -np.inf]), np.float32([np.inf, 0])), [-1, -1], "number 0 is -1, declared 0 to"),
        (Box(-1, 1, ()), 7.0, "outside the bounds of its space: 7, declared -1 to 1"),
        (Box(0, 100, (3,), np.int64), [0, 101, 0], "number 1 is 101, declared 0 to 100"),
        (Box(0, 100, (3,), np.uint8), np.uint8([0, 0, 200]), "number 2 is 200"),
    ],
    ids=str,
)
def test_a_finite_number_outside_its_bounds_is_stored_reported_once_and_counted(space, value, expected):
    env = serial(Counting(observation_space=space, see=lambda time: np.asarray(value)))
    seen = played(env, steps=30)
    np.testing.assert_allclose(seen.last.obs["state"][0], np.ravel(value), rtol=1e-6)
    assert sum(event.outside for event in seen.events) == 31
    (note,) = seen.notes
    assert expected in note
    assert note.startswith("module:Env: the observation 'state' is outside the bounds")
    assert played(env, steps=30).notes == [], "once"


def test_each_observation_is_reported_separately():
    spaces = Dict({"arm": Dict({"joints": VECTOR}), "speed": Box(0, 1, (1,))})
    value = {"arm": {"joints": np.full(3, 2.0)}, "speed": np.array([-1.0])}
    seen = played(serial(Counting(observation_space=spaces, see=lambda time: value)), steps=3)
    assert [re.findall("'(.*)'", note) for note in seen.notes] == [["arm.joints"], ["speed"]]


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (VECTOR, [0, np.nan, 0], "is not finite"),
        (VECTOR, [0, np.inf, 0], "is not finite"),
        (VECTOR, [0, 0], "has shape (2,), expected (3,)"),
        (VECTOR, None, "is None, expected (3,)"),
        (VECTOR, ["a", "b", "c"], "expected numbers"),
        (Discrete(3), 3, "is outside its space: 3"),
        (Discrete(3, start=-1), -2, "is outside its space: -2"),
        (MultiBinary(2), np.array([0, 2]), "is outside its space"),
        (Box(0, 2, (6, 7), np.uint8), np.full((6, 7), 3, np.uint8), "is outside its space"),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_bad", ["stop", "skip-episode"])
def test_invalid_observations_stop_the_run_or_skip_the_episode(space, value, expected, on_bad):
    good = space.sample()
    env = serial(
        Counting(observation_space=space, see=lambda time: value if time == 4 else good), on_bad_observation=on_bad
    )
    if on_bad == "stop":
        with pytest.raises(EnvError, match=re.escape(expected)) as caught:
            played(env, steps=9)
        assert "(copy 0, step 4)" in str(caught.value)
        return
    seen = played(env, steps=9)
    assert [event.interrupted for event in seen.events if expected in event.interrupted]
    assert [int(row.is_first[0]) for row in seen.rows] == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_skipping_stops_after_ten_episodes_without_a_valid_step():
    env = serial(Counting(pay=None), on_bad_observation="skip-episode")
    env.reset()
    with pytest.raises(EnvError, match="the reward is None"):  # noqa: PT012  the steps before are part of it
        for _ in range(TRIES + 1):
            env.step(LEFT)


# Return values of `step` and `reset`


@pytest.mark.parametrize(
    "reward",
    [
        1,
        True,
        [1.0],
        (1,),
        np.array([1.0]),
        np.array([[1.0]]),
        np.float16(1),
        np.int8(1),
        np.array(1),
        np.array([True]),
    ],
    ids=repr,
)
def test_a_reward_is_one_number_in_any_container(reward):
    assert played(serial(Counting(pay=reward))).last.reward.tolist() == [1.0]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (None, "the reward is None, expected one number"),
        ("1.0", "the reward is '1.0', expected one number"),
        ([1.0, 2.0], "the reward is [1.0, 2.0], expected one number"),
        ([], "the reward is [], expected one number"),
        ({"task": 1.0}, "the reward is {'task': 1.0}, expected one number"),
        (1j, "the reward is 1j, expected one number"),
        ([None], "the reward is [None], expected one number"),
        (np.nan, "the reward is not finite: nan"),
        ([-np.inf], "the reward is not finite: -inf"),
    ],
    ids=repr,
)
def test_errors_name_invalid_rewards_and_the_step(reward, expected):
    with pytest.raises(EnvError, match=re.escape(f"module:Env: {expected} (copy 0, step 1).")):
        played(serial(Counting(pay=reward)))


@pytest.mark.parametrize("flag", [True, 1, 1.0, np.True_, np.array(True), np.array([1]), [True]], ids=repr)
def test_a_flag_is_true_or_false_in_any_container(flag):
    row = played(serial(Counting(truncated=flag, terminated=np.array([False])))).last
    assert (row.is_last.tolist(), row.is_terminal.tolist()) == ([True], [False])


@pytest.mark.parametrize("flag", [None, "no", 2, np.nan, [True, False], np.array([])], ids=repr)
def test_errors_name_invalid_flags(flag):
    with pytest.raises(EnvError, match=r"`step` returned .* as terminated, expected true or false \(copy 0, step 1\)"):
        played(serial(Counting(terminated=flag)))


@pytest.mark.parametrize("info", [None, {}, [], "text"], ids=repr)
def test_an_info_that_is_no_dictionary_is_ignored(info):
    assert played(serial(Counting(info=info)), steps=9).last.is_last.all()


class OldApi(Counting):
    """Gym's API before 2022."""

    late = False

    def reset(self):
        self.time = 0
        return np.zeros(3, np.float32)

    def step(self, action):
        self.time += 1
        done = self.time == 9
        return (
            np.full(3, self.time, np.float32),
            [1.0],
            done,
            {"TimeLimit.truncated": True} if self.late and done else {},
        )


@pytest.mark.parametrize("late", [False, True])
def test_the_old_api_is_accepted_and_reported_once(late):
    env = serial(OldApi(late=late))
    seen = played(env, steps=29)
    assert [row.is_first[0] for row in seen.rows] == [True, *[False] * 9] * 3
    assert [row.is_last[0] for row in seen.rows] == [*[False] * 9, True] * 3
    assert [row.is_terminal[0] for row in seen.rows] == [*[False] * 9, not late] * 3
    expected = ["takes no seed", "`reset` returns only the observation", "`step` returns four values"]
    assert [word in note for word, note in zip(expected, seen.notes, strict=True)] == [True] * 3


@pytest.mark.parametrize("given", [None, 3, (1, 2, 3), (1, 2, 3, 4, 5, 6), np.zeros(3)], ids=repr)
def test_errors_name_invalid_results_of_step(given):
    class Odd(Counting):
        def step(self, action):
            return given

    with pytest.raises(EnvError, match=r"module:Env: `step` returned .*, expected \(observation, reward, terminated"):
        played(serial(Odd(), on_bad_observation="skip-episode"))


def test_the_dictionary_in_a_pair_of_observations_is_not_an_info():
    space = Tuple([VECTOR, Dict({"button": Discrete(2)})])
    pair = (np.zeros(3, np.float32), {"button": 1})
    for reset in (lambda: (pair, {}), lambda: pair):
        env = Counting(observation_space=space, see=lambda time: pair)
        env.reset = lambda seed=None, options=None, reset=reset: reset()
        assert serial(env).reset().obs["1.button"].tolist() == [1]


@pytest.mark.parametrize(
    ("metrics", "kept", "expected"),
    [
        ({"score": 3, "flag": True, "array": np.array([2.0])}, {"score": 3.0, "flag": 1.0, "array": 2.0}, ""),
        ({"score": "high", "n": 1}, {"n": 1.0}, "'score' ('high', not a number)"),
        (
            {"score": None, "curve": [1, 2], "n": 1},
            {"n": 1.0},
            "'score' (None, not a number), 'curve' ([1, 2], not a number)",
        ),
        ({"return": 5, "n": 1}, {"n": 1.0}, "'return' (reserved name)"),
        ([1, 2], {}, 'info["metrics"] is [1, 2], expected a mapping of names to numbers'),
        (None, {}, ""),
    ],
    ids=str,
)
def test_metrics_that_are_no_numbers_are_ignored_and_reported_once(metrics, kept, expected):
    env = serial(Counting(info={"metrics": metrics}))
    seen = played(env, steps=19)
    assert [dict(event.metrics) for event in seen.events if event.metrics] == [kept] * 2 * bool(kept)
    assert len(seen.notes) == bool(expected)
    assert expected in "".join(seen.notes)


# Observations


def spaces_of(space, **config):
    env = serial(Counting(observation_space=space, see=lambda time: space.sample()), **config)
    return env.spaces.obs, [line for line in env.descriptions if line.startswith("Observation")], env.reset()


@pytest.mark.parametrize(
    ("shape", "seen", "expected"),
    [
        ((64, 64, 3), (64, 64, 3), "a picture of 64x64x3."),
        ((84, 84), (64, 64, 1), "a picture of 84x84, converted to 64x64x1."),
        (
            (3, 64, 64),
            (64, 64, 3),
            "a picture of 3x64x64, channels first: 3 channels, moved to the end, converted to 64x64x3.",
        ),
        ((4, 84, 84), (64, 64, 4), "channels first: 4 frames or channels, moved to the end"),
        ((4, 84, 84, 3), (64, 64, 12), "4 frames of 84x84, stacked as channels"),
        ((4, 3, 64, 64), (64, 64, 12), "4 frames of 64x64, stacked as channels"),
        ((20, 84, 84), (64, 64, 20), "channels first: 20 frames or channels"),
        ((84, 84, 20), (64, 64, 20), "a picture of 84x84x20, converted to"),
        ((210, 160, 3), (64, 64, 3), "a picture of 210x160x3"),
        ((1, 96, 96), (64, 64, 1), "channels first: 1 channels"),
    ],
)
def test_pictures_are_recognised_by_their_shape(shape, seen, expected):
    (spec,), (line,), _ = spaces_of(Box(0, 255, shape, np.uint8))
    assert (spec.name, spec.shape, spec.classes) == ("image", seen, 0)
    assert expected in line


@pytest.mark.parametrize("frames", [(), (2,)])
def test_channels_first_are_moved_and_not_mixed(frames):
    shape = (*frames, 3, 32, 48)
    picture = np.zeros(shape, np.uint8)
    picture[..., 1, 5:9, 40] = 200  # green, in one part
    space = Box(0, 255, shape, np.uint8)
    env = serial(Counting(observation_space=space, see=lambda time: picture), image=ImageConfig(height=32, width=48))
    seen = env.reset().obs["image"][0]
    green = [1, 4] if frames else [1]
    assert np.argwhere(seen).tolist() == [[row, 40, channel] for row in range(5, 9) for channel in green]


@pytest.mark.parametrize("shape", [(64, 64, 64), (32, 48, 20), (20, 48, 32)])
def test_an_ambiguous_layout_needs_the_setting(shape):
    space = Box(0, 255, shape, np.uint8)
    with pytest.raises(UnsupportedSpaceError, match=r"--env.image.layout channels_last or channels_first"):
        spaces_of(space)
    for layout, channels in (("channels_last", shape[2]), ("channels_first", shape[0])):
        (spec,), _, _ = spaces_of(space, image=ImageConfig(layout=layout))
        assert spec.shape == (64, 64, channels)


@pytest.mark.parametrize(
    ("space", "shape", "classes", "expected"),
    [
        (Box(0, 2, (6, 7), np.uint8), (6, 7), 3, "a 6x7 board, 3 classes."),
        (Box(-1, 1, (9,), np.int8), (9,), 3, "9 integers, 3 classes."),
        (Box(0, 1, (4, 4, 2), np.int64), (4, 4, 2), 2, "a 4x4x2 board, 2 classes."),
        (Box(0, 31, (8, 8), np.uint8), (8, 8), 32, "a 8x8 board, 32 classes."),
        (Box(0, 1, (32, 32), np.uint8), (32, 32), 2, "a 32x32 board, 2 classes."),
        (Box(0, 255, (7, 7, 3), np.uint8), (147,), 0, "a vector of 147 numbers (7x7x3)."),
        (Box(0, 255, (128,), np.uint8), (128,), 0, "a vector of 128 numbers."),
        (Box(0, 40, (6, 7), np.int32), (42,), 0, "a vector of 42 numbers (6x7)."),
        (Box(0, 1, (300, 300), np.uint8), (90_000,), 0, "a vector of 90,000 numbers (300x300)."),
        (Discrete(5), (), 5, "an integer, 5 classes."),
        (Discrete(1), (), 1, "an integer, 1 class."),
        (VECTOR, (3,), 0, "a vector of 3 numbers."),
        (Box(0, 1, (84, 84, 3)), (21_168,), 0, "(84x84x3); as uint8 (0 to 255), it would be a picture."),
    ],
    ids=str,
)
def test_each_observation_is_described(space, shape, classes, expected):
    (spec,), (line,), rows = spaces_of(space)
    assert (spec.shape, spec.classes) == (shape, classes)
    assert line.startswith(f"Observation {spec.name}: ")
    assert line.endswith(expected)
    assert rows.obs[spec.name].shape == (1, *shape)


MIXED = Dict(
    {"arm": Dict({"joints": VECTOR, "grip": Discrete(2)}), "eyes": Tuple([VECTOR, Text(3)]), "mission": Text(9)}
)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"obs_ignore": "mission,eyes.1"}, ["arm.grip", "arm.joints", "eyes.0"]),
        ({"obs_ignore": "mission, eyes.*"}, ["arm.grip", "arm.joints"]),
        ({"obs_keys": "arm.*"}, ["arm.grip", "arm.joints"]),
        ({"obs_keys": "eyes.0"}, ["eyes.0"]),
        ({"obs_keys": "*joints,eyes.0", "obs_ignore": "eyes*"}, ["arm.joints"]),
    ],
    ids=str,
)
def test_keys_are_chosen_by_name_or_pattern(options, names):
    specs, _, rows = spaces_of(MIXED, **options)
    assert [spec.name for spec in specs] == list(rows.obs) == names


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "the observation 'eyes.1' is Text"),
        ({"obs_ignore": "mision"}, "env.obs_ignore is `mision`, expected some of: arm.grip, .* `mission`"),
        ({"obs_keys": "legs"}, "env.obs_keys is `legs`, expected some of: arm.grip, arm.joints, eyes.0"),
        ({"obs_ignore": "*"}, "leave no observation, expected at least one of: arm.grip"),
    ],
    ids=str,
)
def test_errors_name_keys_that_are_missing_or_not_supported(options, expected):
    with pytest.raises(UnsupportedSpaceError, match=expected) as caught:
        spaces_of(MIXED, **options)
    if not options:
        assert "--env.obs-ignore 'eyes.1' excludes it" in str(caught.value)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (Dict({"a.b": VECTOR, "a": Dict({"b": VECTOR})}), "a.b"),
        (Dict({"": VECTOR, "state": VECTOR}), "state"),
        (Dict({1: VECTOR, "1": VECTOR}), "1"),
        (Dict({"1": VECTOR, "": Dict({"1": VECTOR})}), "1"),
    ],
    ids=str,
)
def test_errors_name_duplicate_observations(space, name):
    with pytest.raises(UnsupportedSpaceError, match=f"2 parts of the observation have the name '{re.escape(name)}'"):
        spaces_of(space)


def test_an_image_of_the_environment_excludes_a_rendered_one(monkeypatch):
    class Drawing(Counting):
        render_mode = "rgb_array"
        observation_space = Dict({"image": VECTOR})

        def render(self):
            return np.zeros((32, 32, 3), np.uint8)

    monkeypatch.setattr("tests.envs.test_odd_envs.Drawing", Drawing, raising=False)
    config = EnvConfig(id="tests.envs.test_odd_envs:Drawing", obs="both")
    with pytest.raises(EnvError, match=r"env.obs is both, expected auto or pixels: the environment already has"):
        make_env(config, num_envs=1, seed=0)


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
def test_the_error_names_a_missing_space(space):
    with pytest.raises(UnsupportedSpaceError, match=f"module:Env: its {space} is None, expected one of"):
        serial(Counting(**{space: None}))


# Making environments


def raises(error, **kwargs):
    raise error


class Sized(Counting):
    def __init__(self, size, colour="red"):
        self.size, self.colour = size, colour


MAKERS = {
    "Sized": Sized,
    "raises": functools.partial(raises, OSError("address already in use")),
    "gives_nothing": lambda: None,
}


@pytest.fixture
def makers(monkeypatch):
    for name, maker in MAKERS.items():
        monkeypatch.setattr(f"tests.envs.test_odd_envs.{name}", maker, raising=False)
    yield "tests.envs.test_odd_envs"
    gymnasium.registry.pop("Sized-v0", None)


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "expected"),
    [
        ("Sized", "", EnvFailureError, "raised TypeError: .* missing 1 required positional argument: 'size'"),
        ("Sized", '{"size": 3, "shape": 1}', EnvFailureError, "unexpected keyword argument 'shape'"),
        ("raises", "", EnvFailureError, "cannot be made: it raised OSError: address already in use"),
        ("gives_nothing", "", EnvError, "returned NoneType, expected a gymnasium.Env"),
    ],
)
def test_the_error_names_a_function_that_fails(makers, name, kwargs, error, expected):
    with pytest.raises(error, match=expected) as caught:
        make_env(EnvConfig(id=f"{makers}:{name}", kwargs=kwargs), num_envs=1, seed=0)
    assert ("--env.kwargs" in str(caught.value)) == (name == "Sized")


def test_arguments_reach_the_users_function_and_gymnasium(makers):
    kwargs = '{"size": 3, "colour": "blue"}'
    gymnasium.register("Sized-v0", Sized)
    for env_id in (f"{makers}:Sized", "gym:Sized-v0"):
        env = make_env(EnvConfig(id=env_id, kwargs=kwargs), num_envs=1, seed=0)
        made = env._envs[0].unwrapped
        assert (made.size, made.colour) == (3, "blue")
    with pytest.raises(EnvFailureError, match="missing 1 required positional argument"):
        make_env(EnvConfig(id="gym:Sized-v0"), num_envs=1, seed=0)


@pytest.mark.parametrize("env_id", ["crafter:reward", "gymnax:CartPole-v1"])
def test_suites_without_arguments_refuse_them(env_id):
    with pytest.raises(EnvError, match=r"expected none: gym:ID and module:function take arguments"):
        make_env(EnvConfig(id=env_id, kwargs='{"a": 1}'), num_envs=1, seed=0)


@pytest.mark.parametrize("kwargs", ["3", "[1]", "level=3", "{level: 3}"])
def test_arguments_must_be_a_mapping(makers, kwargs):
    with pytest.raises(ConfigError, match="expected a JSON object of arguments"):
        make_env(EnvConfig(id=f"{makers}:Sized", kwargs=kwargs), num_envs=1, seed=0)


@pytest.mark.parametrize(
    ("files", "env_id", "expected"),
    [
        ({"pkg/__init__.py": "import no_such_library"}, "pkg:make", "No module named 'no_such_library'"),
        ({"pkg/__init__.py": "import no_such_library", "pkg/envs.py": ""}, "pkg.envs:make", "import no_such_library"),
        ({"pkg/__init__.py": "", "pkg/envs.py": "1 / 0"}, "pkg.envs:make", "ZeroDivisionError: division by zero"),
        ({"pkg/__init__.py": "def make(:"}, "pkg:make", "SyntaxError"),
        ({"pkg/__init__.py": ""}, "pkg.envs:make", "No module named 'pkg.envs'"),
        ({"pkg/__init__.py": "import no_such_library"}, "gym:pkg:A-v0", "import no_such_library"),
    ],
    ids=str,
)
def test_the_error_of_a_failed_import_has_its_reason(tmp_path, monkeypatch, files, env_id, expected):
    package = f"package_{abs(hash((env_id, expected)))}"
    for name, text in files.items():
        file = tmp_path / name.replace("pkg", package)
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvError) as caught:
        make_env(EnvConfig(id=env_id.replace("pkg", package)), num_envs=1, seed=0)
    assert "cannot be imported" in str(caught.value)
    assert expected.replace("pkg", package) in str(caught.value)


# Saving


class Pickled(Counting):
    """Raises the given error when it is pickled or unpickled."""

    writing = reading = None

    def __getstate__(self):
        if self.writing:
            raise self.writing
        return vars(self)

    def __setstate__(self, state):
        if state.get("reading"):
            raise state["reading"]
        vars(self).update(state)


ERRORS = [ValueError("ctypes objects"), RuntimeError("no"), RecursionError(), KeyError("x"), OSError(5, "I/O")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_after_an_error_while_pickling_there_is_no_state(error):
    env = serial(Pickled(writing=error))
    env.reset()
    assert env.state() is None


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_while_unpickling_leaves_the_environment_unchanged(error):
    env = serial(Pickled(reading=error))
    env.reset()
    state = env.state()
    assert state is not None
    with pytest.raises(StateError, match=f"saved state of module:Env cannot be read: {type(error).__name__}"):
        env.load(state)
    assert env.reset().is_first.all()


def test_end_episodes():
    env = SerialVectorEnv(EnvConfig(id="m:E"), num_envs=3, seed=0, envs=[Counting() for _ in range(3)])
    action = LEFT.repeat(3, 0)
    env.reset()
    env.step(action)
    env.end_episodes(np.array([False, True, False]))
    rows = env.step(action)
    assert rows.is_first.tolist() == [False, True, False]
    assert rows.obs["state"][:, 0].tolist() == [2, 0, 2]
