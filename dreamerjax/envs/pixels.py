"""Image observations: renders an image if the environment gives none; crops and resizes it after each step."""

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

KEY = "image"  # key of the rendered picture
STATE = "state"  # key of the environment's observation if it is not a dictionary


class Shrink:
    """A frame [height, width] or [height, width, channels] uint8 -> the agent's image.

    Crops, optionally converts to one channel, and resizes with a box filter.
    """

    def __init__(self, config: ImageConfig, shape: tuple[int, ...], what: str) -> None:
        """Prepares for frames of one shape.

        Raises:
            ConfigError: the crop is not a pair of slices, or leaves no pixels of such a frame.
        """
        self._size = (config.width, config.height)
        self._crop = _slices(config.crop)
        cropped = np.empty(shape, np.uint8)[self._crop]
        if 0 in cropped.shape:
            raise ConfigError(
                f"env.image.crop {config.crop!r} leaves no pixels of {what}, which has {shape[0]} rows of {shape[1]} "
                "pixels."
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
    """Adds the picture of `render` to the observations (`--obs both`), or replaces them by it (`--obs pixels`).

    A picture of another size than the first one is an error, as for any observation that does not fit its space.
    """

    def __init__(self, env: gymnasium.Env, *, keep_state: bool, label: str) -> None:
        """Renders a first frame to find its shape.

        Args:
            env: an environment that can render.
            keep_state: keep the environment's own observation.
            label: of the environment, for errors.

        Raises:
            RenderError: the environment cannot be rendered.
        """
        super().__init__(env)
        self._label = label
        if keep_state and isinstance(env.observation_space, Dict) and KEY in env.observation_space.spaces:
            raise EnvError(
                f"{label}: env.obs is both, expected auto or pixels: the environment already has an observation "
                f"'{KEY}'."
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
        """As the wrapped environment's, with the picture."""
        obs, info = self.env.reset(**options)
        return self._seen(obs), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """As the wrapped environment's, with the picture."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._seen(obs), reward, terminated, truncated, info

    def _seen(self, obs: Any) -> dict[str, Any]:
        state = (obs if self._named else {STATE: obs}) if self._keep_state else {}
        return {**state, KEY: self._frame()}

    def _frame(self) -> np.ndarray:
        return render_frame(self.env.render, self._label, make=as_picture)


def with_pixels(env: gymnasium.Env, config: EnvConfig) -> gymnasium.Env:
    """Adds image observations if `config.obs` is "pixels" or "both", which need a `render_mode` that returns arrays."""
    if config.obs in ("pixels", "both"):
        return Rendered(env, keep_state=config.obs == "both", label=config.id)
    return env
