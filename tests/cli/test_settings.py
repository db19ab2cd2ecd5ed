"""The settings of a command: flags, files, environments and recipes."""

from pathlib import Path

import pytest
import yaml

from dreamerjax import cli
from dreamerjax.config import Config
from dreamerjax.runs.settings import nested


def test_flags_override_files_and_files_override_the_environment(here: Path, requested: list[Config]) -> None:
    (here / "a.yaml").write_text("seed: 5\ntrain: {ratio: 5, batch_size: 5}\nlog: {every: 5}")
    (here / "b.yaml").write_text("train: {ratio: 6, batch_size: 6}")
    files = ["--config", "a.yaml", "--config", "b.yaml"]
    assert cli.main(["train", "--env", "cartpole", *files, "--train.batch-size=7", "--backend=cpu"]) == 0
    (config,) = requested
    assert (config.seed, config.train.ratio, config.train.batch_size, config.log.every) == (5, 6.0, 7, 5)
    assert config.env.solve_return == 475
    assert config.agent.precision == "float32", "resolved, so that the stored settings are complete"


def test_a_new_folder_is_named_after_the_environment_and_the_time(here: Path, requested: list[Config]) -> None:
    for _ in range(2):
        assert cli.main(["--env", "gym:Acrobot-v1", "--backend", "cpu"]) == 0
    names = sorted(path.name for path in (here / "runs").iterdir())
    assert len(names) == 2
    assert all(name.startswith("gym-Acrobot-v1-") for name in names)


@pytest.mark.parametrize(
    ("recipe", "size"), [((), "300k"), (("--recipe", "defaults"), "1m"), (("--recipe", "published"), "1m")]
)
def test_the_recipe_of_a_custom_environment_is_stored(
    here: Path, requested: list[Config], recipe: tuple[str, ...], size: str
) -> None:
    assert cli.main(["--env", "tests.envs.faulty_envs:raises", "--backend", "cpu", *recipe]) == 0
    assert requested[0].agent.model.size == size


def test_an_environment_named_in_a_file(here: Path, requested: list[Config]) -> None:
    (here / "mine.yaml").write_text("env: {name: cartpole}\nseed: 3")
    assert cli.main(["--config", "mine.yaml", "--backend", "cpu"]) == 0
    assert (requested[0].env.id, requested[0].env.solve_return, requested[0].seed) == ("gym:CartPole-v1", 475, 3)


@pytest.mark.parametrize(
    "flags", ["--env gym:CartPole-v1 --size 12m --agent.model.hidden 24", "--env cartpole --env.id gym:Acrobot-v1"]
)
def test_the_same_command_gives_the_same_settings(here: Path, requested: list[Config], flags: str) -> None:
    command = [*flags.split(), "--backend", "cpu", "--run-dir", "run"]
    assert cli.main(command) == 0
    (here / "run/config.yaml").write_text(yaml.safe_dump(nested(requested[0])))
    assert cli.main(command) == 0
    assert requested[0] == requested[1]
