"""The platform that JAX runs on: chosen once, before JAX is used, with a clear error if it cannot be used.

JAX chooses its platform at the first computation and cannot change it afterwards, so `select_backend` comes first in
every program. JAX reports a missing accelerator poorly: with a bare `AssertionError`, a list of "known backends",
or silent use of the CPU. A `BackendError` contains the plugin's own reason and the packages to install.
"""

import os
import platform as host_platform
from typing import NamedTuple

import jax
from jax._src import xla_bridge  # no public function lists the platforms in use

from dreamerjax.runtime.installed import PLATFORMS, find_plugin, version_of
from dreamerjax.runtime.platform_start import cpuinfo, default_xla_flag, initialise, probe, running_platform

BACKENDS = ("auto", "cpu", *PLATFORMS)
DETERMINISTIC = "--xla_gpu_deterministic_ops"


class Accelerator(NamedTuple):
    """One kind of accelerator, for error messages."""

    hardware: str
    device_files: tuple[str, ...]  # the driver makes one of these; () where their names vary
    driver: str  # what the plugin needs, and how to check it


ACCELERATORS = {
    "cuda": Accelerator(
        hardware="an NVIDIA GPU",
        device_files=("/dev/nvidiactl", "/dev/dxg"),
        driver="the NVIDIA driver (525 or newer; `nvidia-smi` lists the GPU)",
    ),
    "rocm": Accelerator(
        hardware="an AMD GPU",
        device_files=("/dev/kfd",),
        driver="ROCm 7 from https://rocm.docs.amd.com (`rocminfo` lists the GPU)",
    ),
    "tpu": Accelerator(
        hardware="a TPU",
        device_files=(),
        driver="a Cloud TPU machine",
    ),
}


class Backend(NamedTuple):
    """The platform that JAX runs on."""

    platform: str  # "cpu", "cuda", "rocm" or "tpu"
    device: str  # for people: "AMD EPYC (2 cores)", "NVIDIA H100 80GB HBM3"
    note: str = ""  # one line: why `auto` took this one


class BackendError(RuntimeError):
    """The back-end that was asked for cannot be used.

    The message has three lines: what was asked, the reason in the words of JAX or of the plugin, and what to do.

    Attributes:
        reason: the second line.
    """

    def __init__(self, asked: str, reason: str, remedy: str):
        """Builds the message out of its three lines."""
        super().__init__(f"{asked}\nReason: {reason}\n{remedy}")
        self.reason = reason


def select_backend(name: str, *, also_cpu: bool = False, deterministic: bool = False) -> Backend:
    """Starts JAX on one platform and checks that it runs there.

    Call it before anything is computed with JAX. A second call only checks the platform.

    Sets defaults for XLA that are not in the user's `XLA_FLAGS`: 512-bit vectors on a CPU that has them; no command
    buffers on ROCm, because their while-loop graphs crash.

    Args:
        name: "cpu", "cuda", "rocm", "tpu", or "auto": an accelerator whose plugin is installed and which
            works, else the CPU; the environment variable `JAX_PLATFORMS` decides for "auto" if it names one.
        also_cpu: keep the CPU as a second platform, `jax.devices("cpu")`.
        deterministic: let a GPU use only deterministic kernels.

    Returns:
        The platform, its device, and a note if "auto" had a choice.

    Raises:
        BackendError: the platform is unknown or cannot be used, or JAX runs on another one already.
    """
    if name not in BACKENDS:
        raise BackendError(
            f"Back-end {name!r} was asked for.", "there is no such back-end.", f"Choose one of {', '.join(BACKENDS)}."
        )
    running = running_platform()
    if running is not None:
        return _confirm(name, running, also_cpu)
    if deterministic:
        default_xla_flag(DETERMINISTIC, "true")
    if name == "auto":
        return _start_automatically(also_cpu)
    return _start_safely(name, also_cpu)


def _start_automatically(also_cpu: bool) -> Backend:
    """Starts the first accelerator that works, else the CPU."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted in BACKENDS[1:]:
        return _start_safely(wanted, also_cpu)._replace(note=f"auto: JAX_PLATFORMS={wanted} decides")
    broken = []
    for platform in ACCELERATORS:
        if find_plugin(platform) is None:
            continue
        try:
            return _start_safely(platform, also_cpu)._replace(note=f"auto: {platform} works here")
        except BackendError as error:
            broken.append(f"{platform} does not work here: {error.reason}")
    return _start("cpu", also_cpu)._replace(note="auto: " + ("; ".join(broken) or "no accelerator plugin is installed"))


def _start_safely(platform: str, also_cpu: bool) -> Backend:
    """Starts a platform; an installed accelerator only after it worked in a child process."""
    if platform in ACCELERATORS and find_plugin(platform) is not None:
        reason = probe(platform)
        if reason:
            raise _unusable(platform, reason)
    return _start(platform, also_cpu)


def _start(platform: str, also_cpu: bool) -> Backend:
    """Starts JAX on this platform in this process."""
    reason = initialise(platform, also_cpu)
    if reason:
        raise _unusable(platform, reason)
    return Backend(platform, _device())


def _confirm(name: str, running: str, also_cpu: bool) -> Backend:
    """Accepts the platform that JAX already runs on, or refuses another one."""
    if name not in ("auto", running):
        raise BackendError(
            f"Back-end {name} was asked for.",
            f"JAX already runs on {running} in this process, and cannot change.",
            "Select the back-end before anything is computed with JAX, or start a new process.",
        )
    if also_cpu and "cpu" not in xla_bridge.backends():
        raise BackendError(
            f"Back-end {name} with the CPU beside it was asked for.",
            f"JAX already runs on {running} alone in this process.",
            "Select the back-end once, with also_cpu=True.",
        )
    return Backend(running, _device(), note=f"auto: JAX already runs on {running}" if name == "auto" else "")


def _unusable(platform: str, reason: str) -> BackendError:
    """The error for a platform that JAX cannot use."""
    hardware, device_files, driver = ACCELERATORS.get(platform, Accelerator("the CPU", (), "a working jaxlib"))
    plugin = find_plugin(platform)
    jax_version = f"JAX {version_of('jax')}"
    speaker = f"{plugin.name} {plugin.version} with {jax_version}" if plugin else f"no plugin installed; {jax_version}"
    reason = f"{speaker} says: {_one_line(reason).rstrip('.')}"
    if device_files and not any(os.path.exists(file) for file in device_files):
        reason += f"; there is no {' or '.join(device_files)}"
    elif device_files and not any(os.access(file, os.R_OK) for file in device_files):
        reason += f"; this user may not read {' or '.join(device_files)}"
    needs = f'Install: python -m pip install "dreamerjax[{platform}]"; it needs {driver}.'
    if plugin:
        needs = f"Check: the plugin needs {driver}, and JAX of its own version."
    return BackendError(
        f"Back-end {platform} was asked for, but JAX cannot use {hardware} here.",
        reason,
        needs if platform == "cpu" else f"{needs} Or use the back-end cpu.",
    )


def _device() -> str:
    """The name of the device that JAX computes on, for people."""
    first, *others = jax.devices()
    if first.platform != "cpu":
        return f"{first.device_kind} (first of {1 + len(others)})" if others else first.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = cpuinfo("model name") or host_platform.processor() or host_platform.machine()
    return f"{name} ({cores} core{'s' if cores != 1 else ''})"


def _one_line(text: str, limit: int = 300) -> str:
    """A message on one line, cut to `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."
