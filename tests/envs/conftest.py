"""Fixtures of environments."""

import contextlib
from pathlib import Path

import gymnasium
import jax
import pytest


@pytest.fixture
def register():
    """Registers an environment for one test; returns its id."""
    with contextlib.ExitStack() as stack:

        def add(entry_point, *, name="Scripted-v0", limit=None, **kwargs) -> str:
            gymnasium.register(name, entry_point, max_episode_steps=limit, kwargs=kwargs)
            stack.callback(gymnasium.registry.pop, name)
            return f"gym:{name}"

        yield add


@pytest.fixture
def once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fault happens only in the first copy that reaches it, which makes the file."""
    mark = tmp_path / "happened"
    monkeypatch.setenv("FAULT_ONCE", str(mark))
    return mark


@pytest.fixture
def others_may_broadcast():
    """Packages of others may promote ranks, which is an error in all other tests."""
    with jax.numpy_rank_promotion("allow"):
        yield
