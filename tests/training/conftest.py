"""Fixtures of whole runs."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dreamerjax.runtime.background import any_running
from dreamerjax.training import collector, evaluation, learner, parts
from tests.system import wait_until
from tests.training.small_runs import AGENTS, POLICIES, CountingLearner, SharedDiagnosis, config, play, shared_lower


@pytest.fixture(scope="module")
def shared_programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "compile_cache", SimpleNamespace(lower=shared_lower))
        patch.setattr(parts, "Diagnosis", SharedDiagnosis)
        patch.setattr(parts, "build_agent", AGENTS)
        patch.setattr(collector, "jit_policy", POLICIES)
        patch.setattr(evaluation, "jit_policy", POLICIES)
        yield
        wait_until(lambda: not any_running())


@pytest.fixture
def only_counting(monkeypatch: pytest.MonkeyPatch, shared_programs: None) -> None:
    monkeypatch.setattr(parts, "Learner", CountingLearner)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, shared_programs: None) -> Path:
    """The run that all others are compared with."""
    path = tmp_path_factory.mktemp("runs") / "uninterrupted"
    summary = play(path, config()).summary
    assert (summary["stopped"], summary["env_steps"], summary["updates"]) == ("budget", 60, 44)
    return path
