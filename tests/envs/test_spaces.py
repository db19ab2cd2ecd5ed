"""Every kind of observation and action, and those that are refused."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Text, Tuple

from dreamerjax.config import ImageConfig
from dreamerjax.envs import (
    UnsupportedSpaceError,
)
from dreamerjax.types import ActionSpec, ObsSpec
from tests.envs.scripted import BUTTON, ONE_HOT, VECTOR, Scripted, float32, make

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
def test_every_kind_of_observation_is_converted(register, space, specs):
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
    """Pairs of the leaves of a space and of its value, in Gymnasium's order."""
    if isinstance(space, Dict):
        return [leaf for key in space.spaces for leaf in leaves(space[key], value[key])]
    if isinstance(space, Tuple):
        return [leaf for part, inner in zip(space.spaces, value, strict=True) for leaf in leaves(part, inner)]
    return [(space, value)]


@pytest.mark.parametrize(
    ("space", "expected"),
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
def test_unsupported_observations_are_named(register, space, expected):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make(register(Scripted, observation_space=space), num_envs=1, seed=0)
    message = str(caught.value)
    assert message.startswith(f"gym:Scripted-v0: the observation {expected}")
    assert "Supported: Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these" in message
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
def test_every_kind_of_action_is_in_its_space_and_the_chosen_one(register, space, specs):
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
    ("space", "expected"),
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
def test_unsupported_actions_are_named(register, space, expected):
    with pytest.raises(UnsupportedSpaceError) as caught:
        make(register(Scripted, action_space=space), num_envs=1, seed=0)
    message = str(caught.value)
    assert message.startswith(f"gym:Scripted-v0: {expected}")
    assert "Supported: Discrete, MultiDiscrete, MultiBinary, Box with finite bounds" in message
    assert message.count("\n") == 1
