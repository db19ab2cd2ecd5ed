"""Starts JAX on one platform; run as a script, tries the platform in a child process.

A broken driver can crash or hang the process that starts it, so a child process tries an accelerator first. The child
runs this file without the package, so this file does not import the package.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from jax._src import xla_bridge  # no public function says whether JAX has chosen its platform

PROBE_SECONDS = 180  # the first start of a GPU driver can take most of a minute
WIDE_VECTORS = "--xla_cpu_prefer_vector_width"
COMMAND_BUFFERS = "--xla_gpu_enable_command_buffer"


def initialise(platform: str, also_cpu: bool) -> str:
    """Makes JAX take this platform; returns why it did not, in JAX's or the plugin's words, or ""."""
    if platform == "rocm":
        default_xla_flag(COMMAND_BUFFERS, "")
    if platform == "cpu" and "avx512f" in cpuinfo("flags").split():
        default_xla_flag(WIDE_VECTORS, "512")
    jax.config.update("jax_platforms", f"{platform},cpu" if also_cpu and platform != "cpu" else platform)

    with _plugin_log(platform) as plugin_said:
        failure = ""
        try:
            jax.devices()
        except Exception as error:  # AssertionError, RuntimeError, or any error of a plugin
            failure = str(error)
    if running_platform() == platform:
        return ""
    failure = failure.removeprefix(f"Unable to initialize backend '{platform}': ").split(" (set JAX_PLATFORMS=")[0]
    return next(iter(plugin_said), failure) or f"nothing but that it has no device of the platform {platform}"


def running_platform() -> str | None:
    """Returns the platform JAX computes on by default, None if it has not decided yet; decides nothing."""
    if not xla_bridge.backends_are_initialized():
        return None
    default = xla_bridge.get_backend()  # its own name is "gpu" for both CUDA and ROCm; JAX's key is not
    return next(name for name, client in xla_bridge.backends().items() if client is default)


def probe(platform: str) -> str:
    """Tries an accelerator in a child process.

    Returns:
        Why it does not work, or "" if it does.
    """
    command = [sys.executable, "-P", __file__, platform]  # -P: files of this folder must not hide other modules
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


def _compute(platform: str) -> str:
    """Starts the platform and runs a loop of matrix products on it, in the child; returns what went wrong, or ""."""
    reason = initialise(platform, also_cpu=False)
    if reason:
        return reason
    try:
        identity = jax.numpy.eye(128)
        product, _ = jax.lax.scan(lambda carry, _: (carry @ identity, None), identity, length=4)
        return "" if abs(float(product.sum()) - 128) < 1 else "a small computation gave a wrong result"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _plugin_log(platform: str) -> Iterator[list[str]]:
    """Collects what JAX logs about a platform's plugin, which has the real reasons; prints nothing."""
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


def default_xla_flag(flag: str, value: str) -> None:
    """Adds a flag to XLA_FLAGS unless the user has set it, or names a file of flags there."""
    flags = os.environ.get("XLA_FLAGS", "")
    words = flags.split()
    if any(word.split("=")[0] == flag for word in words) or (words and not words[0].startswith("-")):
        return
    os.environ["XLA_FLAGS"] = " ".join([*words, f"{flag}={value}"])


def cpuinfo(field: str) -> str:
    """Returns a field of the first processor in /proc/cpuinfo, "" where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    found = (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == field)
    return next(found, "")


if __name__ == "__main__":
    print(json.dumps({"reason": _compute(sys.argv[1])}))
