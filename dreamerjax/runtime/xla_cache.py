"""XLA's own cache of compiled programs, on disk."""

import os
import tempfile
import warnings
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def enable_compilation_cache(folder: Path | None = None) -> Path | None:
    """Stores compiled programs on disk, so that only the first run of a program waits for the compiler.

    A cache that cannot be used only costs time, so there is no error and no warning.

    Args:
        folder: of the cache; by default the environment's `JAX_COMPILATION_CACHE_DIR`, else
            `dreamerjax/xla` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`).

    Returns:
        The folder, or None if it cannot be written and nothing is stored.
    """
    usable = _writable(Path(folder or os.environ.get("JAX_COMPILATION_CACHE_DIR") or _user_cache() / "dreamerjax/xla"))
    # JAX decides at the first compilation whether it has a cache; this lets it decide again.
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(usable) if usable else None)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # On a full disk, or for a truncated entry, XLA compiles again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    return usable


def _user_cache() -> Path:
    """The user's cache folder."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path(os.path.expanduser("~/.cache"))


def _writable(folder: Path) -> Path | None:
    """Makes a folder; None if that fails or nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None
