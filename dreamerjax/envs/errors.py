"""Errors of environments, and their messages."""

import traceback

from dreamerjax.config import EnvConfig
from dreamerjax.envs import dependencies


class EnvError(ValueError):
    """A problem with an environment that the user can solve; the message says how."""


class UnknownEnvironmentError(EnvError):
    """There is no environment of that name, or it is not installed."""


class UnsupportedSpaceError(EnvError):
    """The environment observes or acts in a way that the agent cannot handle."""


class RenderError(EnvError):
    """The environment cannot be drawn: its `render` raised an error, or returned no picture."""


class EnvFailureError(EnvError):
    """The environment's own code raised an error."""

    def __init__(self, told: str, what: str, trace: str) -> None:
        """Takes the whole message, what happened in a few words, and the environment's traceback."""
        super().__init__(told, what, trace)
        self.what, self.trace = what, trace

    def __str__(self) -> str:
        return self.args[0]


class StateError(EnvError):
    """A saved state cannot be loaded; the environments are unchanged."""


def cannot_be_imported(env_id: str, module: str, error: Exception) -> UnknownEnvironmentError:
    """The error for a module of the user that cannot be imported, with the end of its traceback."""
    told = f"{env_id}: the module `{module}` cannot be imported: "
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return UnknownEnvironmentError(f"{told}{error}{dependencies.missing_module_hint(module)}")
    told += f"{type(error).__name__}: {error}\n{last_lines(error)}"
    return UnknownEnvironmentError(with_install_line(told, error))


def cannot_be_made(config: EnvConfig, error: Exception) -> EnvFailureError:
    """The error for an environment whose constructor raised one, with the end of its traceback."""
    what = f"raised {type(error).__name__}: {error}"
    advice = ""
    if isinstance(error, TypeError) and "argument" in str(error):
        advice = """\nArguments are given by name: --env.kwargs '{"NAME": VALUE}'."""
    told = with_install_line(f"{config.id} cannot be made: it {what}\n{last_lines(error)}{advice}", error)
    return EnvFailureError(told, what, last_lines(error))


def with_install_line(told: str, error: BaseException) -> str:
    """A message; if a package is missing, with the command that installs it."""
    line = dependencies.install_line(error)
    return f"{told}\n{line}" if line else told


def last_lines(error: BaseException, count: int = 6) -> str:
    """The end of an error's traceback, where the user's own code is."""
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(lines if len(lines) <= count else ["  ...", *lines[-count:]])
