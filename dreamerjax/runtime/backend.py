"""Which machine JAX runs on: one platform, chosen before JAX is used, and an honest answer if it is not there.

JAX decides on its platform the first time anything is computed, and cannot be moved afterwards.
So `select_backend` comes first in every program. Left alone, JAX reports a missing accelerator poorly:
a bare `AssertionError`, a list of "known backends", or a silent move to the CPU; here it becomes a
`BackendError` with the plugin's own reason and what to install.

An accelerator is tried out in a child process first, because a broken driver can end or hang the
process that starts it. The child is this same file, run as a script.
"""

import contextlib
import json
import logging
import os
import platform as host_platform
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax
from jax._src import xla_bridge  # nothing public tells whether JAX has chosen its platform
from jax.experimental.compilation_cache import compilation_cache

BACKENDS = ("auto", "cpu", "cuda", "rocm", "tpu")
PROBE_SECONDS = 180  # the first start of a GPU driver can take most of a minute
WIDE_VECTORS = "--xla_cpu_prefer_vector_width"
COMMAND_BUFFERS = "--xla_gpu_enable_command_buffer"
DETERMINISTIC = "--xla_gpu_deterministic_ops"


class Accelerator(NamedTuple):
    """What a person needs to know about one kind of accelerator."""

    hardware: str
    device_files: tuple[str, ...]  # the driver makes one of these; () where their names vary
    driver: str  # where the part below the plugin comes from, and how to check it


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

    The message has two or three lines: what was asked, the reason in JAX's or the plugin's own words,
    and what to do.

    Attributes:
        reason: the second line alone.
    """

    def __init__(self, asked: str, reason: str, remedy: str):
        """Builds the message out of its three lines."""
        super().__init__(f"{asked}\nReason: {reason}\n{remedy}")
        self.reason = reason


def select_backend(name: str, *, also_cpu: bool = False, deterministic: bool = False) -> Backend:
    """Starts JAX on one platform and makes sure that it really runs there.

    Call it before anything is computed with JAX. Called again, it checks that JAX runs where it is asked to.

    Sets defaults for XLA, each only where the user's `XLA_FLAGS` say nothing about it: 512-bit vectors on a
    CPU that has them; on ROCm no command buffers, because their while-loop graphs crash.

    Args:
        name: "cpu", "cuda", "rocm", "tpu", or "auto": an accelerator whose plugin is installed and which
            works, else the CPU; the environment variable `JAX_PLATFORMS` decides for "auto" if it names one.
        also_cpu: keep the CPU as a second platform beside an accelerator, `jax.devices("cpu")`.
        deterministic: let a GPU use only kernels that give the same numbers twice.

    Returns:
        The platform, its device, and a note if "auto" had a choice.

    Raises:
        BackendError: the platform is unknown or cannot be used, or JAX runs on another one already.
    """
    if name not in BACKENDS:
        raise BackendError(
            f"Back-end {name!r} was asked for.", "there is no such back-end.", f"Choose one of {', '.join(BACKENDS)}."
        )
    running = _running_platform()
    if running is not None:
        return _confirm(name, running, also_cpu)
    if deterministic:
        _default_xla_flag(DETERMINISTIC, "true")
    if name == "auto":
        return _start_automatically(also_cpu)
    return _start_safely(name, also_cpu)


def enable_compilation_cache(folder: Path | None = None) -> Path | None:
    """Keeps what XLA compiles on disk, so that only a program's first run waits for the compiler.

    A cache that cannot be used costs time and nothing else, so it is never a reason to fail or to warn.

    Args:
        folder: where to keep it; by default the environment's `JAX_COMPILATION_CACHE_DIR`, else
            `dreamerjax/xla` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`).

    Returns:
        The folder, or None if it cannot be written and nothing is kept.
    """
    usable = _writable(Path(folder or os.environ.get("JAX_COMPILATION_CACHE_DIR") or _user_cache() / "dreamerjax/xla"))
    # JAX settles whether it has a cache at the first compilation; this lets it decide anew.
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(usable) if usable else None)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # A disk that fills up, or an entry cut short by a kill: XLA compiles again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    return usable


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on: Python, this project, its main libraries, JAX's plugins."""
    from dreamerjax import __version__  # not above: the child process runs this file without the package

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy")
    plugins = [plugin for platform in ACCELERATORS if (plugin := _plugin(platform))]
    return {
        "dreamerjax": __version__,
        "python": host_platform.python_version(),
        **{name: _version(name) for name in names},
        **{plugin.name: plugin.version for plugin in plugins},
    }


# ---------------------------------------------------------------------------------------- starting JAX


def _start_automatically(also_cpu: bool) -> Backend:
    """Starts the first accelerator that works, else the CPU; never fails because of a broken accelerator."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted in BACKENDS[1:]:
        return _start_safely(wanted, also_cpu)._replace(note=f"auto: JAX_PLATFORMS={wanted} decides")
    broken = []
    for platform in ACCELERATORS:
        if _plugin(platform) is None:
            continue
        try:
            return _start_safely(platform, also_cpu)._replace(note=f"auto: {platform} works here")
        except BackendError as error:
            broken.append(f"{platform} does not work here: {error.reason}")
    return _start("cpu", also_cpu)._replace(note="auto: " + ("; ".join(broken) or "no accelerator plugin is installed"))


def _start_safely(platform: str, also_cpu: bool) -> Backend:
    """Starts a platform; an installed accelerator only after a child process has worked with it."""
    if platform in ACCELERATORS and _plugin(platform) is not None:
        reason = _probe(platform)
        if reason:
            raise _unusable(platform, reason)
    return _start(platform, also_cpu)


def _start(platform: str, also_cpu: bool) -> Backend:
    """Starts JAX on this platform in this process."""
    reason = _initialise(platform, also_cpu)
    if reason:
        raise _unusable(platform, reason)
    return Backend(platform, _device())


def _initialise(platform: str, also_cpu: bool) -> str:
    """Makes JAX take this platform; returns why it did not, in JAX's or the plugin's words, or ""."""
    if platform == "rocm":
        _default_xla_flag(COMMAND_BUFFERS, "")
    if platform == "cpu" and "avx512f" in _cpuinfo("flags").split():
        _default_xla_flag(WIDE_VECTORS, "512")
    jax.config.update("jax_platforms", f"{platform},cpu" if also_cpu and platform != "cpu" else platform)

    with _plugin_log(platform) as plugin_said:
        failure = ""
        try:
            jax.devices()
        except Exception as error:  # AssertionError, RuntimeError, or whatever a plugin raises
            failure = str(error)
    if _running_platform() == platform:
        return ""
    failure = failure.removeprefix(f"Unable to initialize backend '{platform}': ").split(" (set JAX_PLATFORMS=")[0]
    return next(iter(plugin_said), failure) or f"nothing but that it has no device of the platform {platform}"


def _confirm(name: str, running: str, also_cpu: bool) -> Backend:
    """Accepts the platform that JAX already runs on, or explains that it is too late for another."""
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


def _running_platform() -> str | None:
    """Returns the platform JAX computes on by default, None if it has not decided yet; decides nothing."""
    if not xla_bridge.backends_are_initialized():
        return None
    default = xla_bridge.get_backend()  # its own name is "gpu" for CUDA and ROCm alike; JAX's key tells them apart
    return next(name for name, client in xla_bridge.backends().items() if client is default)


def _unusable(platform: str, reason: str) -> BackendError:
    """Builds the error for a platform that JAX cannot use."""
    hardware, device_files, driver = ACCELERATORS.get(platform, Accelerator("the CPU", (), "a working jaxlib"))
    plugin = _plugin(platform)
    jax_version = f"JAX {_version('jax')}"
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


# ------------------------------------------------------------------------------- trying out an accelerator


def _probe(platform: str) -> str:
    """Works with an accelerator in a child process.

    Returns:
        Why it does not work, or "" if it does.
    """
    command = [sys.executable, "-P", __file__, platform]  # -P: this folder's files must not hide other modules
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer from the device within {PROBE_SECONDS} seconds"
    try:
        return json.loads(child.stdout.splitlines()[-1])["reason"]
    except (IndexError, ValueError, KeyError, TypeError):
        ending = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
        last_words = (child.stderr.strip().splitlines() or [""])[-1]
        return f"starting it ended a trial process with {ending}: {last_words}"


def _work_as_probe(platform: str) -> str:
    """The child's part: starts the platform and runs a loop of matrix products on it; returns what went wrong."""
    reason = _initialise(platform, also_cpu=False)
    if reason:
        return reason
    try:
        identity = jax.numpy.eye(128)
        product, _ = jax.lax.scan(lambda carry, _: (carry @ identity, None), identity, length=4)
        return "" if abs(float(product.sum()) - 128) < 1 else "a small computation gave a wrong result"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


# ----------------------------------------------------------------------------------------- small parts


class Plugin(NamedTuple):
    """An installed package that gives JAX a platform."""

    name: str
    version: str


def _plugin(platform: str) -> Plugin | None:
    """Finds a platform's plugin among the installed packages, without importing it."""
    for entry_point in metadata.entry_points(group="jax_plugins"):
        if platform in entry_point.name and entry_point.dist is not None:
            return Plugin(entry_point.dist.name, entry_point.dist.version)
    if platform == "tpu" and _version("libtpu"):
        return Plugin("libtpu", _version("libtpu"))
    return None


def _version(package: str) -> str:
    """Returns an installed package's version, "" if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _plugin_log(platform: str) -> Iterator[list[str]]:
    """Collects what JAX logs about a platform's plugin, which is where the real reasons stand; prints nothing."""
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if platform in record.getMessage():
                error = record.exc_info[1] if record.exc_info else None
                collected.append(str(error or record.getMessage()))

    log = logging.getLogger("jax._src.xla_bridge")
    collector, propagated = Collector(logging.WARNING), log.propagate
    log.addHandler(collector)
    log.propagate = False
    try:
        yield collected
    finally:
        log.propagate = propagated
        log.removeHandler(collector)


def _default_xla_flag(flag: str, value: str) -> None:
    """Adds a flag to XLA_FLAGS unless the user has set it, or names a file with flags of their own there."""
    flags = os.environ.get("XLA_FLAGS", "")
    words = flags.split()
    if any(word.split("=")[0] == flag for word in words) or (words and not words[0].startswith("-")):
        return
    os.environ["XLA_FLAGS"] = " ".join([*words, f"{flag}={value}"])


def _device() -> str:
    """Describes the device that JAX computes on, for people."""
    first, *others = jax.devices()
    if first.platform != "cpu":
        return f"{first.device_kind} (first of {1 + len(others)})" if others else first.device_kind
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = _cpuinfo("model name") or host_platform.processor() or host_platform.machine()
    return f"{name} ({cores} core{'s' if cores != 1 else ''})"


def _cpuinfo(field: str) -> str:
    """Returns a field of the first processor in /proc/cpuinfo, "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    found = (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == field)
    return next(found, "")


def _one_line(text: str, limit: int = 300) -> str:
    """Puts a message of any length on one line."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def _user_cache() -> Path:
    """Returns the folder where this user's programs keep what they can make again."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path(os.path.expanduser("~/.cache"))


def _writable(folder: Path) -> Path | None:
    """Makes a folder; returns None if that fails or nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


if __name__ == "__main__":
    print(json.dumps({"reason": _work_as_probe(sys.argv[1])}))
