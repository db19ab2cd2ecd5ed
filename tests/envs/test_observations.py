"""Observations: how they are recognised, described and chosen, and those that are refused."""

import re

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import EnvError, UnsupportedSpaceError, make_env
from tests.envs.odd_envs import VECTOR, Counting, serial


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

    monkeypatch.setattr("tests.envs.test_observations.Drawing", Drawing, raising=False)
    config = EnvConfig(id="tests.envs.test_observations:Drawing", obs="both")
    with pytest.raises(EnvError, match=r"env.obs is both, expected auto or pixels: the environment already has"):
        make_env(config, num_envs=1, seed=0)


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
def test_the_error_names_a_missing_space(space):
    with pytest.raises(UnsupportedSpaceError, match=f"module:Env: its {space} is None, expected one of"):
        serial(Counting(**{space: None}))
