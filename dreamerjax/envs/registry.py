"""Environments by their IDs: `suite:ID`, such as `gym:CartPole-v1`, or `module:function` for the user's own.

A suite is one module of this folder and one line of `SUITES`; its `make` returns a `gymnasium.Env`.
"""

import contextlib
import dataclasses
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium

from dreamerjax.config import ConfigError, EnvConfig, env_kwargs
from dreamerjax.envs import dependencies
from dreamerjax.envs.base import EnvInfo, VectorEnv
from dreamerjax.envs.errors import EnvError, UnknownEnvironmentError, cannot_be_made
from dreamerjax.types import Spaces


class Suite(NamedTuple):
    """A source of environments: a module of this folder, imported when it is used.

    The module has `make(name, config) -> gymnasium.Env` (in batch: `make_vector(name, config, num_envs, seed) ->
    VectorEnv`) and `closest(name) -> str | None`, the ID that was probably meant. Their errors are
    `UnknownEnvironmentError`s.
    """

    module: str
    install: str  # the requirement that pip installs for it
    in_batch: bool = False  # whether its environments are JAX programs, stepped in batch
    kwargs: bool = False  # whether `env.kwargs` are taken


SUITES: Mapping[str, Suite] = {
    "gym": Suite("gym", "dreamerjax", kwargs=True),
    "dmc": Suite("dmc", "dreamerjax[dmc]"),
    "minigrid": Suite("minigrid_env", "dreamerjax[minigrid]"),
    "bsuite": Suite("bsuite_env", "dreamerjax[bsuite]"),
    "atari": Suite("atari", "dreamerjax[atari]"),
    "atari100k": Suite("atari", "dreamerjax[atari]"),
    "crafter": Suite("crafter_env", "dreamerjax[crafter]"),
    "memory-maze": Suite("memory_maze_env", "dreamerjax[memory-maze]"),
    "popgym": Suite("popgym_env", "dreamerjax[popgym]"),
    "gymnax": Suite("gymnax_env", "dreamerjax[gymnax]", in_batch=True),
    "brax": Suite("brax_env", "dreamerjax[brax]", in_batch=True),
    "craftax": Suite("craftax_env", "dreamerjax[craftax]", in_batch=True),
}


def make_env(config: EnvConfig, *, num_envs: int, seed: int) -> VectorEnv:
    """Makes `num_envs` environments that are stepped together.

    Args:
        config: its id, `suite:ID` such as `gym:CartPole-v1`, and how it is seen and stepped.
        num_envs: environments that are stepped together.
        seed: of all their randomness; each environment gets a seed derived from it.

    Raises:
        UnknownEnvironmentError: there is no such suite or environment, or something that it needs is not installed.
        UnsupportedSpaceError: the agent cannot handle its observations or actions.
    """
    suite, name = _split(config.id)
    if suite in SUITES and env_kwargs(config) and not SUITES[suite].kwargs:
        able = ", ".join(f"{other}:ID" for other, entry in SUITES.items() if entry.kwargs)
        raise EnvError(
            f"{config.id}: env.kwargs is {config.kwargs}, expected none: {able} and module:function take arguments."
        )
    if suite in SUITES and SUITES[suite].in_batch:
        make_vector = _module(suite).make_vector
        with _construction(config):
            return make_vector(name, config, num_envs=num_envs, seed=seed)
    if config.workers:
        from dreamerjax.envs.workers import WorkerVectorEnv

        return WorkerVectorEnv(config, num_envs=num_envs, seed=seed)
    from dreamerjax.envs.serial import SerialVectorEnv

    return SerialVectorEnv(config, num_envs=num_envs, seed=seed)


def inspect_env(config: EnvConfig) -> EnvInfo:
    """Makes an environment to read its spaces and its goal, and closes it; raises as `make_env`."""
    env = make_env(dataclasses.replace(config, workers=0), num_envs=1, seed=0)
    try:
        return EnvInfo(env.spaces, env.goal())
    finally:
        env.close()


def spaces_of(config: EnvConfig) -> Spaces:
    """As `inspect_env`, only the spaces."""
    return inspect_env(config).spaces


def make_single(config: EnvConfig) -> gymnasium.Env:
    """Makes one environment of a suite that is not stepped in batch; raises as `make_env`."""
    suite, name = _split(config.id)
    if suite not in SUITES:
        from dreamerjax.envs import imported

        return imported.make(suite, name, config)
    maker = _module(suite).make
    with _construction(config):
        return maker(name, config)


@contextlib.contextmanager
def _construction(config: EnvConfig) -> Iterator[None]:
    """Turns an error of the environment's constructor into an `EnvFailureError`."""
    try:
        yield
    except (EnvError, ConfigError):
        raise
    except Exception as error:
        raise cannot_be_made(config, error) from error


def _split(env_id: str) -> tuple[str, str]:
    """`suite:ID` in two; the suite is known, or a module that can be found."""
    suite, colon, name = env_id.partition(":")
    if colon and (suite in SUITES or _is_module(suite)):
        return suite, name
    problem = f"has an unknown suite, '{suite}'" if colon else "names no suite"
    expected = ", ".join(f"{known}:ID" for known in SUITES)
    raise UnknownEnvironmentError(
        f"The environment `{env_id}` {problem}, expected {expected}, or module:function of your own."
        + (did_you_mean_id(name, env_id) or (dependencies.missing_module_hint(suite) if colon else ""))
    )


def did_you_mean_id(*candidates: str) -> str:
    """A hint, "Did you mean `suite:ID`?", from the suites whose packages are installed; or nothing."""
    for candidate in candidates:
        for suite in SUITES:
            try:
                found = _module(suite).closest(candidate)
            except UnknownEnvironmentError:
                continue
            if found:
                return f" Did you mean `{suite}:{found}`?"
    return ""


def _module(suite: str) -> Any:
    """The module of a suite, or an error that says what to install."""
    entry = SUITES[suite]
    try:
        return importlib.import_module(f"dreamerjax.envs.{entry.module}")
    except ImportError as error:
        raise UnknownEnvironmentError(
            f"{suite}:... needs a package that is not installed ({error}).\n"
            f"Install it: pip install {dependencies.quoted(entry.install)}"
        ) from error


def _is_module(name: str) -> bool:
    """Whether there is such a module, or its package, even if it cannot be imported."""
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
