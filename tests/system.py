"""What the tests of whole runs share: programs that compile quickly, and folders that cannot be written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@contextmanager
def unoptimised_programs(session_folder: Path) -> Iterator[None]:
    """No optimisation, and a cache that lives as long as the test session; child processes inherit both."""
    folder = str(session_folder / "xla")
    environment = {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    options: dict[str, Any] = {
        "jax_compilation_cache_dir": folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in options}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        jax.devices()  # started here, JAX has no flags of XLA that only these tests would choose
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere, so root becomes nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
