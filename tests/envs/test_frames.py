"""A return value of `render` becomes one correct picture, or an error that describes the value."""

from collections import deque
from typing import Any, ClassVar

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from PIL import Image

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, RenderError, make_env
from dreamerjax.envs.frames import FrameError, as_frame, as_picture, same_size
from dreamerjax.envs.jax_native import Arrival, JaxTask, JaxVectorEnv

RGB = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
GREY_RGB = np.stack([GREY] * 3, axis=-1)
UNIT = RGB / 255


class Tensor:
    """A tensor of another library, which numpy reads with `__array__`."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape, self.ndim = array, array.shape, array.ndim

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array


class Unreadable:
    """A tensor on a device."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("use .cpu() first")


PICTURES = {
    "itself": (RGB, RGB),
    "grey": (GREY, GREY_RGB),
    "one channel": (GREY[..., None], GREY_RGB),
    "grey and alpha": (np.stack([GREY, 0 * GREY], axis=-1), GREY_RGB),
    "alpha": (np.concatenate([RGB, RGB[..., :1]], axis=-1), RGB),
    "floats to 1": (UNIT, RGB),
    "half precision to 1": (UNIT.astype(np.float16), RGB),
    "bfloat16 to 1": (jnp.ones((5, 7, 3), jnp.bfloat16), np.full_like(RGB, 255)),
    "floats to 255": (RGB.astype(np.float32), RGB),
    "floats a little outside": (np.where(UNIT == 1, 1 + 1e-6, UNIT - 1e-7), RGB),
    "bool": (GREY > 99, np.where(GREY_RGB > 99, 255, 0)),
    "int64": (RGB.astype(np.int64), RGB),
    "uint16": (RGB.astype(np.uint16), RGB),
    "objects": (RGB.astype(object), RGB),
    "nested lists": (RGB.tolist(), RGB),
    "nested lists of floats": (UNIT.tolist(), RGB),
    "rows": (list(RGB), RGB),
    "grey rows": (list(GREY), GREY_RGB),
    "channels first": (np.moveaxis(RGB, -1, 0), RGB),
    "alpha first": (np.moveaxis(np.concatenate([RGB, RGB[..., :1]], axis=-1), -1, 0), RGB),
    "one channel first": (GREY[None], GREY_RGB),
    "list": ([0 * RGB, RGB], RGB),
    "tuple": ((0 * RGB, RGB), RGB),
    "deque": (deque([0 * RGB, RGB]), RGB),
    "list of frames of other sizes": ([np.zeros((2, 2, 3), np.uint8), RGB], RGB),
    "list of grey ones": ([0 * GREY, GREY], GREY_RGB),
    "list of nested lists": ([(0 * RGB).tolist(), RGB.tolist()], RGB),
    "list of PIL": ([Image.fromarray(0 * RGB), Image.fromarray(RGB)], RGB),
    "array of frames": (np.stack([0 * RGB, RGB]), RGB),
    "PIL": (Image.fromarray(RGB), RGB),
    "PIL in grey": (Image.fromarray(GREY), GREY_RGB),
    "PIL with alpha": (Image.fromarray(RGB).convert("RGBA"), RGB),
    "PIL in black and white": (Image.fromarray(GREY > 99), np.where(GREY_RGB > 99, 255, 0)),
    "PIL of numbers": (Image.fromarray(GREY.astype(np.int32)), GREY_RGB),
    "PIL with a palette": (Image.fromarray(0 * RGB + 7).quantize(2), np.full_like(RGB, 7)),
    "JAX": (jnp.asarray(RGB), RGB),
    "a tensor, channels first": (Tensor(np.moveaxis(UNIT, -1, 0)), RGB),
    "not contiguous": (RGB[::-1, ::-1], RGB[::-1, ::-1]),
    "a pixel": (RGB[:1, :1], RGB[:1, :1]),
}
NO_PICTURES = {
    "None": (None, "returned None, expected a picture"),
    "a list of None": ([None], "a list of 1, expected a picture"),
    "an empty list": ([], "returned an empty list"),
    "an empty deque": (deque(), "returned an empty deque"),
    "text": ("+---+\n|   |", "returned a string"),
    "bytes": (b"GIF89a", "returned bytes"),
    "a number": (3, "returned an object of type int"),
    "an object": (object(), "returned an object of type object"),
    "a dictionary": ({"image": RGB}, "returned an object of type dict"),
    "a tensor elsewhere": (Unreadable(), r"numpy cannot read \(use .cpu\(\) first\)"),
    "ragged lists": ([[1, 2], [3]], "returned a list of 2, which numpy cannot read"),
    "one axis": (RGB[0, 0], r"an array of shape \(3,\)"),
    "five axes": (np.zeros((1, 1, 2, 2, 3)), r"\(1, 1, 2, 2, 3\)"),
    "no rows": (RGB[:0], r"\(0, 7, 3\)"),
    "no frames": (np.zeros((0, 5, 7, 3)), r"\(0, 5, 7, 3\)"),
    "too many channels": (np.zeros((5, 7, 6)), r"\(5, 7, 6\)"),
    "NaN": (np.full((5, 7, 3), np.nan), "numbers from nan to nan, expected 0 ... 255 or 0 ... 1"),
    "infinity": (np.where(RGB > 200, np.inf, 0.0), "numbers from 0 to inf"),
    "negative floats": (2 * UNIT - 1, "numbers from -"),
    "floats too large": (300 * UNIT, "to 29"),
    "integers too large": (RGB.astype(int) + 300, "numbers from 3"),
    "negative integers": (RGB.astype(int) - 300, "numbers from -"),
    "complex numbers": (RGB.astype(complex), "a picture of complex128, expected numbers"),
    "texts": (np.full((5, 7), "x"), "a picture of <U1, expected numbers"),
    "objects": (np.full((5, 7), {}), "a picture of object, expected numbers"),
    "nothing at all": (np.full((5, 7), None), "numbers from nan to nan"),
}


@pytest.mark.parametrize(("given", "expected"), PICTURES.values(), ids=PICTURES)
def test_pictures_are_converted(given, expected):
    frame = as_frame(given)
    assert (frame.dtype, frame.flags.c_contiguous, frame.flags.writeable) == (np.uint8, True, True)
    np.testing.assert_array_equal(frame, expected)
    assert not (isinstance(given, np.ndarray) and np.shares_memory(frame, given))


@pytest.mark.parametrize(("given", "expected"), NO_PICTURES.values(), ids=NO_PICTURES)
def test_other_values_are_errors(given, expected):
    with pytest.raises(FrameError, match=expected):
        as_frame(given)


def test_grey_pictures_may_keep_one_channel():
    np.testing.assert_array_equal(as_picture(GREY), GREY[..., None])
    np.testing.assert_array_equal(as_picture(RGB), RGB)


@pytest.mark.parametrize("size", [(10, 14), (2, 3), (5, 20), (30, 7), (1, 1)], ids=str)
def test_frames_of_other_sizes_are_resized_to_the_first(size):
    frames = list(same_size([RGB, np.full((*size, 3), 200, np.uint8), RGB[:4]]))
    assert [frame.shape for frame in frames] == [RGB.shape] * 3
    np.testing.assert_array_equal(frames[0], RGB)
    rows, columns = np.nonzero(frames[1][..., 0])
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    scale = min(5 / size[0], 7 / size[1])
    assert (height, width) == tuple(max(1, round(scale * side)) for side in size)
    assert (frames[1][rows, columns] == 200).all()
    assert len(rows) == height * width, "the rest is black"
    assert abs(rows.min() - (4 - rows.max())) <= 1, "in the middle"


# Environments


class Drawn(gymnasium.Env):
    """Renders the class attribute `pictures`."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(2)
    render_mode = "rgb_array"
    pictures: ClassVar[list[Any]] = [RGB]  # one for each step; the last one is repeated

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> Any:
        self.time += 1
        return np.zeros(2, np.float32), 1.0, False, False, {}

    def render(self) -> Any:
        picture = self.pictures[min(self.time, len(self.pictures) - 1)]
        if isinstance(picture, BaseException):
            raise picture
        return picture


def class_that_draws(monkeypatch: pytest.MonkeyPatch, *pictures: Any, mode: str | None = "rgb_array") -> EnvConfig:
    monkeypatch.setattr(Drawn, "pictures", list(pictures))
    monkeypatch.setattr(Drawn, "render_mode", mode)
    return EnvConfig(id=f"{__name__}:Drawn")


@pytest.mark.parametrize(
    ("mode", "picture", "expected"),
    [
        ("rgb_array", GREY, GREY_RGB),
        ("rgb_array_list", [0 * RGB, RGB], RGB),
        ("human", RGB, None),
        ("ansi", "+--+", None),
        (None, RGB, None),
    ],
)
def test_an_environment_is_rendered_if_its_mode_returns_pictures(monkeypatch, mode, picture, expected):
    env = make_env(class_that_draws(monkeypatch, picture, mode=mode), num_envs=1, seed=0)
    env.reset()
    frame = env.render()
    assert (frame is None) == (expected is None)
    if frame is not None:
        np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (None, ":Drawn: `render` returned None, expected a picture"),
        (np.full((2, 2, 3), np.nan), "`render` returned a picture of numbers from nan to nan"),
        (RuntimeError("no display"), ":Drawn: `render` raised RuntimeError: no display"),
        (SystemExit(1), "`render` raised SystemExit: 1"),
    ],
    ids=str,
)
def test_an_environment_that_cannot_be_rendered_is_an_error(monkeypatch, picture, expected):
    env = make_env(class_that_draws(monkeypatch, picture), num_envs=1, seed=0)
    env.reset()
    with pytest.raises(RenderError, match=expected):
        env.render()
    env.step(np.eye(2, dtype=np.float32)[:1])  # the environment still works


@pytest.mark.parametrize(
    ("picture", "channels"),
    [(RGB, 3), (GREY, 1), (UNIT, 3), (np.concatenate([RGB, RGB[..., :1]], axis=-1), 3), ([RGB], 3), (UNIT[..., 0], 1)],
)
def test_rendered_pictures_can_be_observations(monkeypatch, picture, channels):
    config = class_that_draws(monkeypatch, picture, mode="rgb_array_list" if isinstance(picture, list) else "rgb_array")
    for obs, names in (("pixels", ["image"]), ("both", ["image", "state"])):
        env = make_env(EnvConfig(id=config.id, obs=obs), num_envs=1, seed=0)
        assert sorted(spec.name for spec in env.spaces.obs) == names
        image = env.reset().obs["image"]
        assert image.shape == (1, 64, 64, channels)
        assert 50 < image.mean() < 200


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (RGB[:4], r"the observation 'image' has shape \(4, 7, 3\), expected \(5, 7, 3\)"),
        (GREY, r"'image' has shape \(5, 7, 1\), expected \(5, 7, 3\)"),
        (None, "`render` returned None"),
        (RuntimeError("no display"), "`render` raised RuntimeError: no display"),
    ],
    ids=str,
)
def test_a_picture_of_another_shape_is_no_observation(monkeypatch, second, expected):
    config = class_that_draws(monkeypatch, RGB, second)
    env = make_env(EnvConfig(id=config.id, obs="pixels"), num_envs=1, seed=0)
    env.reset()
    with pytest.raises(EnvError, match=expected):
        env.step(np.eye(2, dtype=np.float32)[:1])


def test_pixels_need_a_render_mode(monkeypatch):
    config = class_that_draws(monkeypatch, RuntimeError("no display"))
    with pytest.raises(RenderError, match="`render` raised RuntimeError: no display"):
        make_env(EnvConfig(id=config.id, obs="pixels"), num_envs=1, seed=0)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda state: jnp.ones((5, 7)) * state, ""),
        (lambda state: jnp.full((5, 7), jnp.nan), "task: `render` returned a picture of numbers from nan"),
        (lambda state: jnp.ones(3), r"`render` returned an array of shape \(3,\)"),
        (lambda state: 1 / 0, "`render` raised ZeroDivisionError"),
    ],
    ids=["floats", "NaN", "one axis", "raises"],
)
def test_jax_environments_are_rendered_in_the_same_way(draw, expected):
    def step(key: Any, state: Any, action: Any) -> Any:
        no = jnp.zeros((), bool)
        return state, Arrival(state[None], jnp.float32(1), no, no, {})

    task = JaxTask(
        Box(-9, 9, (1,), np.float32), Discrete(2), lambda key: (jnp.float32(1), jnp.ones(1)), step, draw=draw
    )
    env = JaxVectorEnv(task, EnvConfig(id="task"), num_envs=2, seed=0)
    assert env.render() is None
    env.reset()
    if expected:
        with pytest.raises(RenderError, match=expected):
            env.render()
    else:
        np.testing.assert_array_equal(env.render(), np.full((5, 7, 3), 255))
