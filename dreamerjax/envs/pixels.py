"""Images at their source: rendered where the environment has none, cut and made small right after each step."""

import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict
from PIL import Image

from dreamerjax.config import ConfigError, EnvConfig, ImageConfig
from dreamerjax.envs import EnvError
from dreamerjax.envs.frames import as_picture, render_frame
from dreamerjax.envs.pictures import PictureBox

KEY = "image"  # of the rendered picture among the observations
STATE = "state"  # of the rest, where that is not a dictionary


class Shrink:
    """A frame [height, width] or [height, width, channels] uint8 -> the image that the agent sees.

    It is cropped, made grey or not, and resized by averaging over the pixels that fall into a new one.
    """

    def __init__(self, config: ImageConfig, shape: tuple[int, ...], what: str) -> None:
        """Prepares for frames of one shape.

        Raises:
            ConfigError: the crop is no pair of slices, or leaves nothing of such a frame.
        """
        self._size = (config.width, config.height)
        self._crop = _slices(config.crop)
        cropped = np.empty(shape, np.uint8)[self._crop]
        if 0 in cropped.shape:
            raise ConfigError(
                f"env.image.crop {config.crop!r} leaves nothing of {what}, whose frames are {shape[0]} rows of "
                f"{shape[1]} pixels."
            )
        channels = 1 if len(shape) == 2 else shape[2]
        self._colour = config.colour if channels == 3 else "colour"
        self.shape = (config.height, config.width, channels if self._colour == "colour" else 1)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The image [height, width, channels] uint8."""
        frame = frame[self._crop]
        if frame.ndim == 3 and frame.shape[-1] == 1:
            frame = frame[..., 0]
        if self._colour == "darkest":
            frame = np.minimum(np.minimum(frame[..., 0], frame[..., 1]), frame[..., 2])
        if self._colour == "grey":
            frame = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).convert("L"))
        if frame.shape[:2] != self.shape[:2]:
            frame = self._resized(frame)
        return np.array(frame).reshape(self.shape)

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        if frame.ndim == 2 or frame.shape[-1] == 3:
            picture = Image.fromarray(np.ascontiguousarray(frame))
            return np.asarray(picture.resize(self._size, Image.Resampling.BOX))
        return np.concatenate([self._resized(channel)[..., None] for channel in np.moveaxis(frame, -1, 0)], axis=-1)


def _slices(text: str) -> tuple[slice, ...]:
    if not text:
        return (slice(None), slice(None))
    match = re.fullmatch(r"\s*(\d*):(\d*)\s*,\s*(\d*):(\d*)\s*", text)
    if match is None:
        raise ConfigError(f"env.image.crop is {text!r}, expected top:bottom,left:right, such as 170:310,100:500.")
    top, bottom, left, right = (int(number) if number else None for number in match.groups())
    return slice(top, bottom), slice(left, right)


class Rendered(gymnasium.Wrapper):
    """Adds what `render` shows to the observations (`--obs both`), or puts it in their place (`--obs pixels`).

    A picture of another size than the first one is told as any observation that is outside of its space.
    """

    def __init__(self, env: gymnasium.Env, *, keep_state: bool, label: str) -> None:
        """Renders a first frame, to know its shape.

        Args:
            env: it draws itself.
            keep_state: the picture comes beside what the environment shows.
            label: of the environment, for errors.

        Raises:
            RenderError: it cannot be drawn.
        """
        super().__init__(env)
        self._label = label
        if keep_state and isinstance(env.observation_space, Dict) and KEY in env.observation_space.spaces:
            raise EnvError(
                f"{label} has an observation '{KEY}' of its own, and env.obs both adds one: expected auto or pixels."
            )
        env.reset(seed=0)
        picture = PictureBox(self._frame().shape)
        space = env.observation_space
        self._named = isinstance(space, Dict)
        self._keep_state = keep_state
        spaces: dict[str, gymnasium.Space] = {}
        if keep_state:
            spaces = dict(space.items()) if isinstance(space, Dict) else {STATE: space}
        self.observation_space = Dict(spaces | {KEY: picture})

    def reset(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the environment's, with the picture."""
        obs, info = self.env.reset(**options)
        return self._seen(obs), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """As the environment's, with the picture."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._seen(obs), reward, terminated, truncated, info

    def _seen(self, obs: Any) -> dict[str, Any]:
        state = (obs if self._named else {STATE: obs}) if self._keep_state else {}
        return {**state, KEY: self._frame()}

    def _frame(self) -> np.ndarray:
        return render_frame(self.env.render, self._label, make=as_picture)


def with_pixels(env: gymnasium.Env, config: EnvConfig) -> gymnasium.Env:
    """The environment as `config.obs` wants it; for "pixels" and "both", it must have been made to render arrays."""
    if config.obs in ("pixels", "both"):
        return Rendered(env, keep_state=config.obs == "both", label=config.id)
    return env
