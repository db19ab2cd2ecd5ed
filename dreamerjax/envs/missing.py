"""Packages that an environment needs and that are not installed: the line that installs them."""

import importlib.util
import os
import re
from collections.abc import Iterator

from gymnasium.error import DependencyNotInstalled

# Module -> the file of requirements that has its package.
MODULES = {
    "Box2D": "requirements-box2d.txt",
    "ale_py": "requirements-atari.txt",
    "brax": "requirements-brax.txt",
    "bsuite": "requirements-bsuite.txt",
    "craftax": "requirements-craftax.txt",
    "crafter": "requirements-crafter.txt",
    "dm_control": "requirements-dmc.txt",
    "gymnax": "requirements-gymnax.txt",
    "memory_maze": "requirements-memory-maze.txt",
    "minigrid": "requirements-minigrid.txt",
    "mujoco": "requirements-mujoco.txt",
    "popgym": "requirements-popgym.txt",
    "pygame": "requirements.txt",
}
# Modules whose package has another name, and no file of requirements here.
PACKAGES = {"PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image", "sklearn": "scikit-learn"}
# Gymnasium's own extras, as its errors name them.
EXTRAS = {
    "atari": "requirements-atari.txt",
    "box2d": "requirements-box2d.txt",
    "classic-control": "requirements.txt",
    "mujoco": "requirements-mujoco.txt",
    "toy-text": "requirements.txt",
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
            if extra and (file := EXTRAS.get(extra[1].replace("_", "-"))):
                return f"Install it: pip install -r {file}"
        elif isinstance(cause, ModuleNotFoundError) and cause.name and not _is_there(cause.name):
            known = cause.name.partition(".")[0] in MODULES
            how = "Install it" if known else "Install the package that has it, probably"
            return f"{how}: pip install {requirement_of(cause.name)}"
    return ""


def module_told(module: str) -> str:
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
    return f"-r {MODULES[top]}" if top in MODULES else PACKAGES.get(top, top)


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
