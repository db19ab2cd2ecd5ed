"""Environments: many copies of one environment, stepped together, as the agent sees them.

An environment's id is `suite:ID`, such as `gym:CartPole-v1`, or `module:function` for the user's own. A suite is one
file of this folder and one line of `SUITES`; its `make` gives a `gymnasium.Env`. What all of them share is here:
`observations.py` and `actions.py` (what the agent sees and does), `pixels.py` (rendering), `step_result.py` (what
`reset` and `step` gave), `serial.py` (stepping), `workers.py` (processes), `saving.py` (checkpoints).
"""

import contextlib
import dataclasses
import importlib
import importlib.util
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dreamerjax.config import ConfigError, EnvConfig, env_kwargs
from dreamerjax.envs import dependencies
from dreamerjax.types import Rows, Spaces


class EnvError(ValueError):
    """Something about an environment that the user can put right; the message says what."""


class UnknownEnvironmentError(EnvError):
    """There is no environment of that name, or it is not installed."""


class UnsupportedSpaceError(EnvError):
    """The environment observes or acts in a way that the agent cannot handle."""


class RenderError(EnvError):
    """The environment cannot be drawn: its `render` raised something, or gave what is no picture."""


class EnvFailureError(EnvError):
    """The environment's own code raised something."""

    def __init__(self, told: str, what: str, trace: str) -> None:
        """Takes the whole message, what happened in a few words, and the environment's traceback."""
        super().__init__(told, what, trace)
        self.what, self.trace = what, trace

    def __str__(self) -> str:
        return self.args[0]


class StateError(EnvError):
    """A saved state cannot be taken over; the environments are as they were."""


class EnvEvent(NamedTuple):
    """Something that happened beside the rows."""

    copy: int
    interrupted: str = ""  # why an episode was cut short, for people; empty: it was not
    metrics: Mapping[str, float] = {}  # of an episode that ended, beside return and length
    outside: bool = False  # an observation left the bounds that its space declares
    note: str = ""  # what people should know, once a run
    topic: str = ""  # of the note: of each topic, one is told


class Goal(NamedTuple):
    """The mean return that an environment itself counts as solved."""

    value: float | None = None  # None: it names none, or one that does not hold here
    reason: str = ""  # where it comes from, or why it does not hold, for people


class Look(NamedTuple):
    """What one look at an environment tells."""

    spaces: Spaces
    goal: Goal


class VectorEnv(ABC):
    """`copies` environments, stepped together; each starts a new episode on the step after its last row.

    A copy may also start anew in the middle of an episode, which was interrupted then: a row that `is_first` after one
    that is not `is_last`. An `EnvEvent` says why.
    """

    spaces: Spaces
    descriptions: tuple[str, ...]  # how each observation is seen and what is done, for people: a line each
    num_envs: int

    @abstractmethod
    def reset(self, seed: int | None = None) -> Rows:
        """Starts all copies anew from the seed: the same first episodes each time.

        Args:
            seed: another seed than the one that the environments were made with, from now on.

        Returns:
            The first rows: `is_first` everywhere, no reward and no action before.
        """

    @abstractmethod
    def step(self, action: np.ndarray) -> Rows:
        """Takes one action in every copy.

        Args:
            action: [num_envs, A] float32, choices one-hot; vectors are clipped to [-1, 1] and scaled to the
                environment's bounds. A copy whose last row was `is_last` ignores it and starts a new episode.

        Returns:
            The rows of arriving there; `prev_action` is the action as given, 0 where a new episode starts.

        Raises:
            EnvError: the environment fails, or an action, an observation or a reward is not what it should be.
        """

    @abstractmethod
    def end_episodes(self, copies: np.ndarray) -> None:
        """Ends the episodes of these copies, [num_envs] bool: their next step begins new ones, whatever the action."""

    @abstractmethod
    def state(self) -> bytes | None:
        """What `load` needs to go on exactly here, random numbers included; None if there is no such thing."""

    @abstractmethod
    def load(self, state: bytes) -> None:
        """Takes over what `state` returned, with however many workers that was.

        It is a pickle, which can run code: load none that you do not trust.

        Raises:
            StateError: the state is of another environment or another number of copies, or cannot be read; `reset` is
                what one can do then.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees what the environments hold. They cannot be used afterwards."""

    def goal(self) -> Goal:
        """The return that the environment itself counts as solved, if it says so."""
        return Goal()

    def render(self) -> np.ndarray | None:
        """A picture of the first copy, [height, width, 3] uint8; None if the environment draws none.

        Raises:
            RenderError: it should draw one, and cannot.
        """
        return None

    def place(self, seen: np.ndarray) -> bool:
        """Puts the first copy in the middle of an episode, where its observation is `seen` [size].

        Returns:
            False, and nothing is changed, if the environment cannot be put anywhere.
        """
        return False

    def action_names(self) -> list[str]:
        """What each number of an action [A] is called: each choice, each number of a vector. Empty: nobody says."""
        return []

    def take_events(self) -> list[EnvEvent]:
        """What happened in the last step, beside its rows; asked again, nothing."""
        return []

    def random_action(self, generator: np.random.Generator) -> np.ndarray:
        """A uniformly random action for every copy, [num_envs, A] float32: choices one-hot, vectors in [-1, 1]."""
        parts = [
            np.eye(size, dtype=np.float32)[generator.integers(size, size=self.num_envs)]
            if kind == "discrete"
            else generator.uniform(-1.0, 1.0, (self.num_envs, size)).astype(np.float32)
            for kind, size in self.spaces.actions
        ]
        return np.concatenate(parts, axis=-1)


def copy_seeds(seed: int, num_envs: int) -> list[int]:
    """The seed of each copy; whatever their number, the first ones get the same."""
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(num_envs)]


class Suite(NamedTuple):
    """A source of environments: a module of this folder, imported when it is used.

    It has `make(name, config) -> gymnasium.Env` (or `make_vector(name, config, copies, seed) -> VectorEnv`, where the
    environments are stepped in batch) and `closest(name) -> str | None`, the ID that was probably meant. Their errors
    are `UnknownEnvironmentError`s.
    """

    module: str
    install: str  # the requirement that pip must install for it
    in_batch: bool = False
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
    """Makes the copies of an environment.

    Args:
        config: its id, `suite:ID` such as `gym:CartPole-v1`, and how it is seen and stepped.
        num_envs: environments that are stepped together.
        seed: of all their randomness; each copy gets its own part of it.

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
        with _told_by_its_maker(config):
            return make_vector(name, config, num_envs=num_envs, seed=seed)
    if config.workers:
        from dreamerjax.envs.workers import WorkerVectorEnv

        return WorkerVectorEnv(config, num_envs=num_envs, seed=seed)
    from dreamerjax.envs.serial import SerialVectorEnv

    return SerialVectorEnv(config, num_envs=num_envs, seed=seed)


def look_at(config: EnvConfig) -> Look:
    """What the agent sees and does in an environment, which is made for a moment; raises as `make_env`."""
    env = make_env(dataclasses.replace(config, workers=0), num_envs=1, seed=0)
    try:
        return Look(env.spaces, env.goal())
    finally:
        env.close()


def spaces_of(config: EnvConfig) -> Spaces:
    """As `look_at`, the spaces alone."""
    return look_at(config).spaces


def make_single(config: EnvConfig) -> gymnasium.Env:
    """Makes one copy, of a suite that is not stepped in batch; raises as `make_env`."""
    suite, name = _split(config.id)
    if suite not in SUITES:
        from dreamerjax.envs import imported

        return imported.make(suite, name, config)
    maker = _module(suite).make
    with _told_by_its_maker(config):
        return maker(name, config)


@contextlib.contextmanager
def _told_by_its_maker(config: EnvConfig) -> Iterator[None]:
    """What the environment's own code raises while it is made, told as such."""
    try:
        yield
    except (EnvError, ConfigError):
        raise
    except Exception as error:
        raise cannot_be_made(config, error) from error


def cannot_be_imported(env_id: str, module: str, error: Exception) -> UnknownEnvironmentError:
    """What importing the user's module raised; with where it did, unless there is no such module."""
    told = f"{env_id}: the module `{module}` cannot be imported: "
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return UnknownEnvironmentError(f"{told}{error}{dependencies.missing_module_hint(module)}")
    told += f"{type(error).__name__}: {error}\n{last_lines(error)}"
    return UnknownEnvironmentError(with_install_line(told, error))


def cannot_be_made(config: EnvConfig, error: Exception) -> EnvFailureError:
    """What the environment's constructor raised, with the last lines of where it did."""
    what = f"raised {type(error).__name__}: {error}"
    advice = ""
    if isinstance(error, TypeError) and "argument" in str(error):
        advice = """\nArguments are given by name: --env.kwargs '{"NAME": VALUE}'."""
    told = with_install_line(f"{config.id} cannot be made: it {what}\n{last_lines(error)}{advice}", error)
    return EnvFailureError(told, what, last_lines(error))


def with_install_line(told: str, error: BaseException) -> str:
    """A message, and below it the line that installs what is missing, where the error is of that kind."""
    line = dependencies.install_line(error)
    return f"{told}\n{line}" if line else told


def last_lines(error: BaseException, count: int = 6) -> str:
    """The end of an error's traceback, where the user's own code stands."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(lines if len(lines) <= count else ["  ...", *lines[-count:]])


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
    """Whether there is such a module, or such a package that holds it, whether or not it can be imported."""
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
