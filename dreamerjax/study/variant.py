"""A variant: a user's function that changes the program before a command runs, such as `my_networks.py:waves`.

Use it to change code instead of settings: custom networks, or an injected fault in an experiment.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from dreamerjax.config import ConfigError
from dreamerjax.runtime import compile_cache

FLAG = "--variant"


def load_variant(name: str) -> Callable[[], None]:
    """Loads the function `FILE.py:NAME`.

    Raises:
        ConfigError: there is no such file or function, or the file cannot be imported.
    """
    file, _, function = name.rpartition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location("variant", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(
            f"The file of the variant `{name}` does not exist, expected FILE.py:NAME, such as my_networks.py:waves."
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"The variant's file {path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        known = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == "variant"]
        raise ConfigError(f"{path} has no function `{function}`, expected one of {', '.join(known)}.")
    return getattr(module, function)


def apply_variant(arguments: list[str]) -> list[str]:
    """Calls the function of `--variant` if the command line has one; returns the other arguments.

    Raises:
        ConfigError: see `load_variant`.
    """
    at = next((place for place, word in enumerate(arguments) if word.partition("=")[0] == FLAG), None)
    if at is None:
        return arguments
    name = arguments[at].partition("=")[2] or next(iter(arguments[at + 1 : at + 2]), "")
    compile_cache.disable()  # the compile cache's key does not include the variant
    load_variant(name)()
    return arguments[:at] + arguments[at + (1 if "=" in arguments[at] else 2) :]
