"""Fixtures of the command line: a small run, an empty folder, the requested settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dreamerjax import cli
from dreamerjax.config import Config
from tests.cli.commands import TINY


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of a run that takes seconds."""
    file = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    file.write_text(TINY)
    return ["--env", "cartpole", "--backend", "cpu", "--config", str(file)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run folder with checkpoints at 40 and at 60 steps. Copy it to change it."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    assert cli.main([*tiny, "--run-dir", str(path)]) == 0
    assert cli.main(["--run-dir", str(path), "--env-steps", "60"]) == 0
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The settings of the runs that would have been trained."""
    configs: list[Config] = []

    def train(folder: Any, config: Config, *rest: Any, notes: Sequence[str], profile: bool) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr("dreamerjax.cli.training._train_in", train)
    return configs
