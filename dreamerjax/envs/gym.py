"""Gymnasium environments, `gym:ID`: the ID as Gymnasium has it, or `module:ID` to import your own module first."""

import importlib
import inspect
import os
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from dreamerjax.config import EnvConfig, env_kwargs
from dreamerjax.envs import (
    EnvError,
    UnknownEnvironmentError,
    cannot_be_imported,
    mujoco_gl,
    with_install_line,
)
from dreamerjax.envs.missing import registering_module
from dreamerjax.envs.names import closest_of
from dreamerjax.envs.pixels import with_pixels
from dreamerjax.envs.pygame_frames import BlockFrames

DRAWN_BY_PYGAME = ("gymnasium.envs.classic_control", "gymnasium.envs.box2d")


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The environment, from its state or from what it renders; see `Suite`."""
    module, _, registered = name.rpartition(":")
    module = module or (registered not in gymnasium.registry and registering_module(registered)) or ""
    if module:
        try:
            importlib.import_module(module)
        except Exception as error:  # the module may be the user's: it may raise anything
            raise cannot_be_imported(f"gym:{name}", module, error) from error
    if registered not in gymnasium.registry:
        meant = closest(registered)
        advice = f"Did you mean `gym:{meant}`?" if meant else "Is the package that registers it installed?"
        raise UnknownEnvironmentError(f"Gymnasium knows no environment `{registered}`. {advice}")
    pixels = config.obs in ("pixels", "both")
    if _is_mujoco(registered):
        mujoco_gl.choose()
        if pixels and not mujoco_gl.draws():
            raise EnvError(f"gym:{name}: env.obs is {config.obs}, but {mujoco_gl.ADVICE}")
    options: dict[str, Any] = {"render_mode": "rgb_array"} if pixels or _draws(registered) else {}
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a screen
    try:
        # The environment checker would warn about things that the agent does not mind, or that are checked here.
        env = gymnasium.make(registered, disable_env_checker=True, **options | env_kwargs(config))
        if _is_mujoco(registered):
            env = OwnContext(env)
        elif options and any(room in str(gymnasium.spec(registered).entry_point) for room in DRAWN_BY_PYGAME):
            env = BlockFrames(env)
        return with_pixels(env, config)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnknownEnvironmentError(with_install_line(f"gym:{name} cannot be made: {error}", error)) from error


class OwnContext(gymnasium.Wrapper):
    """Draws in the environment's own OpenGL context, which Gymnasium leaves when another one is made or closed."""

    def render(self) -> Any:
        """As the environment's."""
        env: Any = self.env.unwrapped
        if env.mujoco_renderer.viewer is not None:
            env.mujoco_renderer.viewer.make_context_current()
        return self.env.render()


def _draws(registered: str) -> bool:
    """Whether the environment can be made to draw itself, by what it says of itself."""
    if _is_mujoco(registered) and not mujoco_gl.draws():
        return False
    entry_point = gymnasium.spec(registered).entry_point
    try:
        maker: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    except (ImportError, AttributeError, gymnasium.error.Error):  # told when it is made
        return False
    taken = inspect.signature(maker).parameters.values()
    selectable = any(one.name == "render_mode" or one.kind is one.VAR_KEYWORD for one in taken)
    return selectable and "rgb_array" in getattr(maker, "metadata", {}).get("render_modes", [])


def _is_mujoco(registered: str) -> bool:
    return "mujoco" in str(gymnasium.spec(registered).entry_point)


def closest(name: str) -> str | None:
    """The registered ID that was probably meant, or None."""
    return closest_of(name, gymnasium.registry)
