"""Packages that an environment needs and that are not installed: the line that installs them."""

import importlib.util
import os
import re
from collections.abc import Iterator

from gymnasium.error import DependencyNotInstalled

# Module -> what pip installs it with.
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
# Modules whose package has another name, and no extra here.
PACKAGES = {"PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image", "sklearn": "scikit-learn"}
# Gymnasium's own extras, as its errors name them.
EXTRAS = {
    "atari": "dreamerjax[atari]",
    "box2d": "dreamerjax[box2d]",
    "classic-control": "pygame",
    "mujoco": "dreamerjax[mujoco]",
    "toy-text": "pygame",
}
# What IDs of other packages begin with -> the module that registers them with Gymnasium.
REGISTERED_BY = {"ALE/": "ale_py", "BabyAI-": "minigrid", "MiniGrid-": "minigrid"}


def registering_module(env_id: str) -> str | None:
    """The module that must be imported before Gymnasium knows this ID; None: none that is known here."""
    return next((module for start, module in REGISTERED_BY.items() if env_id.startswith(start)), None)


def install_line(error: BaseException) -> str:
    """A line that installs what is missing, by the error that says so or by those that it came of; else nothing.

    A part of a package that is installed is not missing in this sense, and neither is one of the user's own modules.
    """
    for cause in _causes(error):
        if isinstance(cause, DependencyNotInstalled):
            extra = re.search(r"gymnasium\[([\w-]+)\]", str(cause))
            if extra and (requirement := EXTRAS.get(extra[1].replace("_", "-"))):
                return f"Install it: pip install {quoted(requirement)}"
        elif isinstance(cause, ModuleNotFoundError) and cause.name and not _is_there(cause.name):
            known = cause.name.partition(".")[0] in MODULES
            how = "Install it" if known else "Install the package that has it, probably"
            return f"{how}: pip install {requirement_of(cause.name)}"
    return ""


def missing_module_hint(module: str) -> str:
    """Of a module that an environment was to come from and that is not there: a line to stand below the error."""
    if _is_there(module):
        return ""  # the package is, and has no such part
    top = module.partition(".")[0]
    if top in MODULES:
        return f"\nInstall it: pip install {requirement_of(top)}"
    return f"\nThere is no `{top}` in this folder, {os.getcwd()}, nor among the installed packages."


def requirement_of(module: str) -> str:
    """What pip must install for a module, as its arguments."""
    top = module.partition(".")[0]
    return quoted(MODULES.get(top) or PACKAGES.get(top, top))


def quoted(requirement: str) -> str:
    """As a shell takes it: brackets mean something there."""
    return f'"{requirement}"' if "[" in requirement else requirement


def _is_there(module: str) -> bool:
    """Whether the package of a module is installed, so that something else is wrong."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came of, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
