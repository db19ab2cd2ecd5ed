"""What holds for every test: JAX on the CPU, no accidental broadcasting, reproducible examples."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before jax is imported anywhere

import hypothesis
import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile("default", max_examples=50, deadline=None)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("default"), derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
