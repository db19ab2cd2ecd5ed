"""Finds the pip command that installs an environment's missing packages."""

import importlib.util
import os
import re
from collections.abc import Iterator

from gymnasium.error import DependencyNotInstalled

# Module -> the requirement for pip.
MODULES = {
    "Box2D": "dreamerjax[box2d]",
    "ale_py": "dreamerjax[atari]",
    "brax": "dreamerjax[brax]",
    "bsuite": "dreamerjax[bsuite]",
    "craftax": "dreamerjax[craftax]",
    "crafter": "dreamerjax[crafter]",
    "dm_control": "dreamerjax[dmc]",
    "gymnax": "dreamerjax[gymnax]",
    "memory_maze": "dreamerjax[memory-maze]",
    "minigrid": "dreamerjax[minigrid]",
    "mujoco": "dreamerjax[mujoco]",
    "popgym": "dreamerjax[popgym]",
    "pygame": "pygame",
}
# Modules with another package name and without an extra of this package.
PACKAGES = {"PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image", "sklearn": "scikit-learn"}
# Gymnasium's own extras, as in its error messages -> the requirement for pip.
EXTRAS = {
    "atari": "dreamerjax[atari]",
    "box2d": "dreamerjax[box2d]",
    "classic-control": "pygame",
    "mujoco": "dreamerjax[mujoco]",
    "toy-text": "pygame",
}
# Prefix of an ID -> the module that registers it with Gymnasium.
REGISTERED_BY = {"ALE/": "ale_py", "BabyAI-": "minigrid", "MiniGrid-": "minigrid"}


def registering_module(env_id: str) -> str | None:
    """The module that must be imported to register this ID with Gymnasium; None if unknown."""
    return next((module for start, module in REGISTERED_BY.items() if env_id.startswith(start)), None)


def install_line(error: BaseException) -> str:
    """The command that installs the missing package, found from the error and its causes; empty if there is none.

    Missing submodules of installed packages do not count.
    """
    for cause in _causes(error):
        if isinstance(cause, DependencyNotInstalled):
            extra = re.search(r"gymnasium\[([\w-]+)\]", str(cause))
            if extra and (requirement := EXTRAS.get(extra[1].replace("_", "-"))):
                return f"Install it: pip install {quoted(requirement)}"
        elif isinstance(cause, ModuleNotFoundError) and cause.name and not _is_installed(cause.name):
            known = cause.name.partition(".")[0] in MODULES
            how = "Install it" if known else "Install the package that provides it, probably"
            return f"{how}: pip install {requirement_of(cause.name)}"
    return ""


def missing_module_hint(module: str) -> str:
    """A hint for the module of an environment that cannot be found, as a line to append to the error message."""
    if _is_installed(module):
        return ""  # the package is installed, but has no such submodule
    top = module.partition(".")[0]
    if top in MODULES:
        return f"\nInstall it: pip install {requirement_of(top)}"
    return f"\nThere is no module `{top}` in the current folder, {os.getcwd()}, or among the installed packages."


def requirement_of(module: str) -> str:
    """The requirement to install for a module, quoted for the shell."""
    top = module.partition(".")[0]
    return quoted(MODULES.get(top) or PACKAGES.get(top, top))


def quoted(requirement: str) -> str:
    """Quotes a requirement with brackets, which shells would interpret."""
    return f'"{requirement}"' if "[" in requirement else requirement


def _is_installed(module: str) -> bool:
    """Whether the package of a module is installed."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its chain of causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
