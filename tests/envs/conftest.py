"""Environments that are registered for one test."""

import contextlib

import gymnasium
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
