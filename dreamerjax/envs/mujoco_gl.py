"""Finds what MuJoCo can draw with: EGL (a GPU's driver, or Mesa on the CPU) or OSMesa.

MuJoCo reads MUJOCO_GL when it is first imported, and a failed attempt cannot be repeated in the same process: so each
is tried in a process of its own, half a second long. Whoever imports MuJoCo calls `choose` before.
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
    "MuJoCo can draw neither through EGL nor through OSMesa here. Install one of them, such as "
    "`apt install libegl1 libgl1-mesa-dri` or `apt install libosmesa6`; it is then found by itself. "
    "MUJOCO_GL=egl, osmesa or glfw names one."
)


def choose() -> None:
    """Sets MUJOCO_GL to what works, or to "disable"; nothing where it is set, or where MuJoCo finds it by itself."""
    if VARIABLE in os.environ or sys.platform != "linux" or importlib.util.find_spec("mujoco") is None:
        return
    os.environ[VARIABLE] = next(filter(_works, RENDERERS), NONE)


def value() -> str | None:
    """What MUJOCO_GL says."""
    return os.environ.get(VARIABLE)


def draws() -> bool:
    """Whether anything can be drawn, as far as MUJOCO_GL tells."""
    return value() != NONE


def _works(renderer: str) -> bool:
    environment = {**os.environ, VARIABLE: renderer}
    return subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True).returncode == 0
