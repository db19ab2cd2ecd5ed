"""What holds for every test: JAX on the CPU, programs compiled quickly and once, reproducible examples.

Child processes inherit the environment, and so find what is compiled already.
"""

import os
import shutil
from importlib import metadata
from pathlib import Path

# Before jax is imported anywhere. The compiler needs a fifth of the time; the numbers are the same to rounding. Vectors
# are as wide as `select_backend` makes them, so that the programs of a process in which it starts JAX are no others.
os.environ["JAX_PLATFORMS"] = "cpu"
# (jaxlib 0.11 does not know the last flag, and ends the process for it.)
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_prefer_vector_width=512"
    + (" --xla_cpu_use_fusion_emitters=false" if metadata.version("jaxlib") < "0.11" else "")
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax
import pytest

LARGEST_CACHE = 10**9  # bytes

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("default", max_examples=50, deadline=None)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("default"), derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    """All tests share what they compile, also those of the other worker and of the next session."""
    folder = config.rootpath / ".pytest_cache" / "xla"
    folder.mkdir(parents=True, exist_ok=True)
    if not hasattr(config, "workerinput") and _size(folder) > LARGEST_CACHE:
        shutil.rmtree(folder)  # mostly programs of older versions of the code
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
