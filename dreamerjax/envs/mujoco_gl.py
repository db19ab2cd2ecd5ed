"""Finds MuJoCo's rendering back-end: EGL (a GPU's driver, or Mesa on the CPU) or OSMesa.

MuJoCo reads MUJOCO_GL on its first import, and a failed attempt cannot be repeated in the same process. Each back-end
is therefore tried in a separate process, which takes half a second. Call `choose` before importing MuJoCo.
"""

import importlib.util
import os
import subprocess
import sys

VARIABLE = "MUJOCO_GL"
RENDERERS = ("egl", "osmesa")  # in the order in which they are tried
PROBE = "import mujoco; mujoco.GLContext(16, 16).make_current()"
NONE = "disable"
ADVICE = (
    "MuJoCo can render with neither EGL nor OSMesa here. Install one of them, with "
    "`apt install libegl1 libgl1-mesa-dri` or `apt install libosmesa6`; it is then found automatically. "
    "MUJOCO_GL=egl, osmesa or glfw selects one."
)


def choose() -> None:
    """Sets MUJOCO_GL to a back-end that works, or to "disable". Does nothing if it is set, or not on Linux."""
    if VARIABLE in os.environ or sys.platform != "linux" or importlib.util.find_spec("mujoco") is None:
        return
    os.environ[VARIABLE] = next(filter(_works, RENDERERS), NONE)


def value() -> str | None:
    """The value of MUJOCO_GL."""
    return os.environ.get(VARIABLE)


def draws() -> bool:
    """Whether MuJoCo can render, according to MUJOCO_GL."""
    return value() != NONE


def _works(renderer: str) -> bool:
    environment = {**os.environ, VARIABLE: renderer}
    return subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True).returncode == 0
