"""Imports your own environment by path: `mypackage.mymodule:make_env`, a function that returns a `gymnasium.Env`."""

import difflib
import importlib

import gymnasium

from dreamerjax.config import EnvConfig, env_kwargs
from dreamerjax.envs import UnknownEnvironmentError, cannot_be_imported, cannot_be_made
from dreamerjax.envs.frames import PICTURE_MODES
from dreamerjax.envs.pixels import with_pixels


def make(module: str, function: str, config: EnvConfig) -> gymnasium.Env:
    """Calls the function (or the class) with the arguments of `env.kwargs`.

    Raises:
        UnknownEnvironmentError: the module cannot be imported, has no such function, or the function does not return a
            `gymnasium.Env`.
        EnvFailureError: the function raises.
    """
    env_id = f"{module}:{function}"
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the module is the user's: it may raise anything
        raise cannot_be_imported(env_id, module, error) from error
    maker = getattr(found, function, None)
    if not callable(maker):
        callables = [name for name in vars(found) if not name.startswith("_") and callable(getattr(found, name))]
        meant = difflib.get_close_matches(function, callables, n=1)
        advice = f" Did you mean `{module}:{meant[0]}`?" if meant else ""
        raise UnknownEnvironmentError(f"{env_id}: the module `{module}` has no function `{function}`.{advice}")
    kwargs = env_kwargs(config)
    try:
        env = maker(**kwargs)
    except Exception as error:
        raise cannot_be_made(config, error) from error
    if not isinstance(env, gymnasium.Env):
        raise UnknownEnvironmentError(
            f"{env_id} returned {type(env).__name__}, expected a gymnasium.Env with observation_space and action_space."
        )
    if config.obs in ("pixels", "both") and env.render_mode not in PICTURE_MODES:
        raise UnknownEnvironmentError(
            f"{env_id}: env.obs is {config.obs}, but its render_mode is {env.render_mode!r}, expected 'rgb_array' or "
            "'rgb_array_list'."
        )
    return with_pixels(env, config)
