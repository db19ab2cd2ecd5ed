"""Fixtures of dreams."""

import pytest

import dreamerjax
from dreamerjax.inference.dreamer import Dreamer
from tests.tiny_run import make_run


@pytest.fixture(scope="session")
def dreamer(tmp_path_factory: pytest.TempPathFactory) -> Dreamer:
    """A tiny agent that has learned nothing; no test modifies it."""
    return dreamerjax.load(make_run(tmp_path_factory.mktemp("run") / "a"))
