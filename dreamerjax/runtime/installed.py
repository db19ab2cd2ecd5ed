"""Installed packages: JAX's plugins, and the versions that a result depends on."""

import platform as host_platform
from importlib import metadata
from typing import NamedTuple

from dreamerjax import __version__

PLATFORMS = ("cuda", "rocm", "tpu")  # that a plugin gives to JAX


class Plugin(NamedTuple):
    """An installed package that gives JAX a platform."""

    name: str
    version: str


def find_plugin(platform: str) -> Plugin | None:
    """The plugin of a platform among the installed packages; it is not imported."""
    for entry_point in metadata.entry_points(group="jax_plugins"):
        if platform in entry_point.name and entry_point.dist is not None:
            return Plugin(entry_point.dist.name, entry_point.dist.version)
    if platform == "tpu" and version_of("libtpu"):
        return Plugin("libtpu", version_of("libtpu"))
    return None


def version_of(package: str) -> str:
    """The version of an installed package; "" if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """The versions that a result depends on: Python, this project, its main libraries, JAX's plugins."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy")
    plugins = [plugin for platform in PLATFORMS if (plugin := find_plugin(platform))]
    return {
        "dreamerjax": __version__,
        "python": host_platform.python_version(),
        **{name: version_of(name) for name in names},
        **{plugin.name: plugin.version for plugin in plugins},
    }
