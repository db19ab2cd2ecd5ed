"""Versions of what a result depends on."""

import re

from dreamerjax.runtime.installed import versions


def test_versions():
    found = versions()
    assert list(found)[:3] == ["dreamerjax", "python", "jax"]
    assert {"jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy"} <= set(found)
    assert all(re.match(r"\d+\.\d+", version) for version in found.values()), found
