"""The command line: arguments to files, output and exit codes. Errors are short and change no files."""

import dataclasses
import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
import yaml
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

import dreamerjax
from dreamerjax import cli
from dreamerjax.cli import settings_help
from dreamerjax.config import Config, flatten
from dreamerjax.monitoring.metrics import MetricsWriter, read_metrics
from dreamerjax.runs import run_folder
from dreamerjax.runs.checkpoint import restore_raw
from dreamerjax.runs.settings import KEYS, combine, nested, read_yaml
from tests.system import without_privileges

ROOT = Path(__file__).parents[1]
TINY = """
agent:
  model:
    {deter: 16, hidden: 8, groups: 4, classes: 4, blocks: 4, bins: 31,
     encoder_layers: 1, decoder_layers: 1, actor_layers: 1, critic_layers: 1, prior_layers: 1}
  returns: {imagination_horizon: 3}
  optimizer: {warmup_updates: 0}
train: {env_steps: 40, prefill: 16, ratio: 8, batch_size: 2, sequence_length: 4, updates_per_dispatch: 2}
replay: {capacity: 1000}
eval: {every: 20, episodes: 2, final_episodes: 3, num_envs: 2}
log: {every: 10, checkpoint_seconds: 1000, video_every: 0, report: false}
alerts: {data_wait_share: 1}
"""
EVALUATION = {"episodes", "episodes_cut", "return_mean", "return_std", "return_min", "return_max", "length_mean"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of a run that takes seconds."""
    file = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    file.write_text(TINY)
    return ["--env", "cartpole", "--backend", "cpu", "--config", str(file)]


@pytest.fixture(scope="module")
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


def contents(path: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of files, None for folders."""
    return {str(each): each.read_bytes() if each.is_file() else None for each in sorted(path.rglob("*"))}


def user_error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error message of a command that fails before it prints anything, after a check of its form."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert 1 <= len(err.splitlines()) <= 3
    assert "Traceback" not in err
    return err


# Invalid arguments and files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "No environment: give --env NAME"),
        ("--seed 1", "No environment: give --env NAME"),
        ("trian --env cartpole", "Unknown command `trian`, expected one of train, eval"),
        ("--env cartpol", "Unknown environment `cartpol`. Did you mean `cartpole`?"),
        ("--env gym:CartPole-v9", "Did you mean `gym:CartPole-v1`?"),
        ("--env gym:CartPol-v1", "Did you mean `gym:CartPole-v1`?"),
        ("--env gymm:CartPole-v1", "unknown suite, 'gymm'"),
        ("--env gym:no_such_module:Thing-v0", "the module `no_such_module` cannot be imported"),
        ("--env cartpole --sede 1", "Unknown flag `--sede`. Did you mean `--seed`"),
        ("--env cartpole --batch-size 1", "Did you mean `--train.batch-size`?"),
        ("--env cartpole --horizon 15", "Did you mean `--agent.returns.imagination-horizon`"),
        ("--env cartpole --agent.actor.learning-rat 1", "Did you mean `--agent.actor.learning-rate`"),
        ("--env cartpole extra", "Unknown flag `extra`"),
        ("--env", "--env needs a value"),
        ("--env cartpole --run-dir", "argument --run-dir: expected one argument"),
        ("--env cartpole --seed one", "--seed is 'one', expected a whole number"),
        ("--env cartpole --seed -1", "seed is -1, expected 0 or more"),
        ("--env cartpole --size 2m", "--size is '2m', expected one of 300k, 1m, 12m"),
        ("--env cartpole --train-ratio fast", "--train-ratio is 'fast', expected a number"),
        ("--env cartpole --train-ratio nan", "train.ratio is nan, expected a number above 0"),
        ("--env cartpole --train-ratio 0", "train.ratio is 0.0, expected a number above 0"),
        ("--env cartpole --env-steps -5", "train.env_steps is -5, expected 1 or more"),
        ("--env cartpole --train.batch-size 0", "train.batch_size is 0, expected 1 or more"),
        ("--env cartpole --train.batch-size 2.5", "--train.batch-size is '2.5', expected a whole number"),
        ("--env cartpole --train.sequence-length 1", "train.sequence_length is 1, expected 2 or more"),
        ("--env cartpole --agent.returns.imagination-horizon -3", "imagination_horizon is -3, expected 1 or more"),
        ("--env cartpole --agent.returns.return-lambda 1.5", "return_lambda is 1.5, expected a number from 0 to 1"),
        ("--env cartpole --agent.returns.return-lambda -0.1", "return_lambda is -0.1, expected a number from 0 to 1"),
        ("--env cartpole --agent.model.deter 100", "agent.model.deter is 100, expected a multiple of agent.model.blo"),
        ("--env cartpole --eval.every -1", "eval.every is -1, expected 0 or more"),
        ("--env cartpole --replay.capacity 3", "replay.capacity is 3, expected at least"),
        ("--env cartpole --backend gpu", "Back-end 'gpu' was asked for."),
        ("--env gym:CartPole-v1 --recipe large", "argument --recipe: invalid choice: 'large'"),
        ("--env cartpole --recipe laptop", "--recipe is laptop, expected none here"),
        ("--env cartpole --config missing.yaml", "missing.yaml cannot be read: No such file or directory"),
        ("--env cartpole --init-from missing", "--init-from missing contains no checkpoint"),
        ("eval", "the following arguments are required: --run-dir"),
        ("eval --run-dir missing", "There is no folder missing."),
        ("--env CartPole-v1", "Unknown environment `CartPole-v1`. Did you mean `gym:CartPole-v1`?"),
        (
            "--env cartpole --lr 3e-4",
            "Did you mean `--agent.world-model.learning-rate` or `--agent.actor.learning-rate`",
        ),
        (
            "--env cartpole --config laptop-dmc",
            "expected a YAML file or one of dmc_nature, laptop, laptop_dmc. Did you mean",
        ),
        ("trian", "Did you mean `train`?"),
        ("eval --run-dir missing --episodes 0", "--episodes is 0"),
        ("eval --run-dir missing --episodes many", "argument --episodes: 'many' is given, expected a whole number"),
        ("eval --run-dir missing --seed -1", "--seed is -1"),
        ("eval --run-dir missing --episode 3", "--episode"),
        ("eval --run-dir missing --backend gpu", "Back-end 'gpu' was asked for."),
        ("selfcheck --backend gpu", "Back-end 'gpu' was asked for."),
        ("selfcheck --env cartpole", "Unknown flag `--env`."),
        ("bench --batch-siz 8", "Unknown flag `--batch-siz`. Did you mean `--batch-size`?"),
        ("bench --train.batch-size 8", "Unknown flag `--train.batch-size`. Did you mean `--batch-size`?"),
        ("bench --batch-size 0", "argument --batch-size: '0' was given, expected a whole number, 1 or more"),
        ("bench --rounds -1", "argument --rounds: '-1' was given, expected a whole number, 1 or more"),
        ("bench --horizon 2.5", "argument --horizon: '2.5' was given, expected a whole number, 1 or more"),
        ("bench --size 2m", "argument --size: invalid choice: '2m' (choose from"),
        ("bench --precision half", "argument --precision: invalid choice: 'half' (choose from"),
        ("bench --sequence-length 1", "train.sequence_length is 1, expected 2 or more"),
        ("bench --replay-rows 63", "replay.capacity is 63, expected at least"),
        ("bench --config missing.yaml", "missing.yaml cannot be read: No such file or directory"),
        ("bench --backend gpu", "Back-end 'gpu' was asked for."),
        ("bench --compare a.json", "argument --compare: expected 2 arguments"),
        ("bench --compare a.json b.json", "a.json cannot be read: No such file or directory"),
        ("bench --sweep width=1,2", "`width` cannot be swept, expected one of size, batch-size, sequence-length"),
        ("bench --sweep batchsize=1", "Did you mean `batch-size`?"),
        ("bench --sweep size", "--sweep size names no values"),
        ("bench --sweep size=1m,2m", "argument --size: invalid choice: '2m' (choose from"),
        ("bench --sweep batch-size=8,0", "argument --batch-size: '0' was given"),
        ("eval --run-dir x --episods 3", "Unknown flag `--episods`. Did you mean `--episodes`?"),
    ],
)
def test_invalid_arguments_give_an_error_and_create_no_files(
    here: Path, requested: list[Config], capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in user_error(capsys, *arguments.split())
    if arguments.startswith("--") and "--run-dir" not in arguments:
        assert message in user_error(capsys, "--run-dir", here / "run", *arguments.split())
    assert contents(here) == {}
    assert requested == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  ratio: 8\n  batch_size: [8\n", "mine.yaml, line 4 is not YAML"),
        ("train: {ratio: 8\nseed: 1\n", "mine.yaml, line 2 is not YAML"),
        ("- seed", "mine.yaml holds list, expected settings"),
        ("train: {ratoi: 8}", "mine.yaml: unknown key `train.ratoi`. Did you mean `train.ratio`?"),
        ("seed: one", "mine.yaml: seed is 'one', expected a whole number"),
        ("train: {batch_size: -8}", "train.batch_size is -8, expected 1 or more"),
        ("env: {name: cartpol}", "Unknown environment `cartpol`. Did you mean `cartpole`?"),
    ],
)
def test_invalid_settings_in_a_file_give_an_error(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (here / "mine.yaml").write_text(text)
    environment = [] if "env:" in text else ["--env", "cartpole"]
    assert message in user_error(capsys, *environment, "--config", "mine.yaml")
    assert list(contents(here)) == [str(here / "mine.yaml")]


BUTTON, VECTOR = Discrete(2), Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("observation", "action", "named"),
    [
        (Dict({"said": Text(9), "seen": VECTOR}), BUTTON, "the observation 'said' is Text("),
        (Tuple([VECTOR, Text(9)]), BUTTON, "the observation '1' is Text("),
        (VECTOR, Box(-np.inf, np.inf, (1,), np.float32), "the action is Box(-inf, inf, (1,), float32)"),
        (VECTOR, Dict({"go": BUTTON, "say": Text(9)}), "the action 'say' is Text("),
    ],
    ids=lambda value: value.split("(")[0] if isinstance(value, str) else "",
)
def test_unsupported_spaces_give_an_error(
    here: Path, capsys: pytest.CaptureFixture[str], observation: Any, action: Any, named: str
) -> None:
    class Odd(gymnasium.Env):
        observation_space, action_space = observation, action

    gymnasium.register("Odd-v0", Odd)
    try:
        error = user_error(capsys, "--env", "gym:Odd-v0")
    finally:
        del gymnasium.registry["Odd-v0"]
    assert f"gym:Odd-v0: {named}" in error
    assert ", which is not supported." in error
    assert "Supported:" in error
    assert contents(here) == {}


def test_a_missing_back_end_gives_an_error(here: Path) -> None:
    """Runs the program in a subprocess, because a process chooses its back-end once."""
    if any("rocm" in plugin.name for plugin in metadata.entry_points(group="jax_plugins")):
        pytest.skip("ROCm's plugin is installed here")
    command = [sys.executable, "-W", "error", ROOT / "run.py", "--env", "cartpole", "--backend", "rocm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    requested, reason, remedy = done.stderr.splitlines()
    assert requested == "error: Back-end rocm was asked for, but JAX cannot use an AMD GPU here."
    assert reason.startswith("Reason: ")
    assert "dreamerjax[rocm]" in remedy
    assert contents(here) == {}


# Run folders


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ("--env gym:Acrobot-v1", ["env.id: gym:CartPole-v1 there, gym:Acrobot-v1 here"]),
        ("--agent.model.deter 32", ["agent.model.deter: 16 there, 32 here"]),
        ("--agent.model.bins 41 --agent.model.hidden 16", ["bins: 31 there, 41 here", "hidden: 8 there, 16 here"]),
        ("--env cartpole --size 12m", ["deter: 16 there, 2048 here", "hidden: 8 there, 256 here"]),
    ],
)
def test_the_folder_of_another_run_is_not_changed(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str], arguments: str, keys: list[str]
) -> None:
    before = contents(trained)
    error = user_error(capsys, *arguments.split(), "--run-dir", trained)
    assert "belongs to another environment or architecture" in error
    for key in keys:
        assert key in error
    assert contents(trained) == before


def test_a_settings_file_can_also_differ_from_the_run(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yaml").write_text("agent: {model: {groups: 8}}")
    before = contents(trained)
    assert "groups: 4 there, 8 here" in user_error(capsys, "--config", "mine.yaml", "--run-dir", trained)
    assert contents(trained) == before


def test_a_folder_in_use_by_another_process_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    hold = (
        "import sys, pathlib, dreamerjax.runs.run_folder as r\n"
        "with r.RunFolder.open(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(here / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        before = contents(here)
        error = user_error(capsys, *tiny, "--run-dir", here / "run")
        assert f"{here / 'run'} is in use: process {process.pid} is training in it." in error
        assert contents(here) == before
        process.kill()


def test_a_folder_without_write_permission_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    here.chmod(0o555)
    try:
        with without_privileges():
            error = user_error(capsys, "--env", "cartpole", "--run-dir", here / "run")
    finally:
        here.chmod(0o755)
    assert str(here / "run") in error
    assert "ermission" in error
    assert contents(here) == {}


def test_a_run_folder_that_cannot_be_created_gives_an_error(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    assert "/proc/dreamerjax/run" in user_error(capsys, *tiny, "--run-dir", "/proc/dreamerjax/run")


def test_a_file_as_the_run_folder_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run").write_text("mine")
    assert "is not a folder" in user_error(capsys, *tiny, "--run-dir", "run")
    assert (here / "run").read_text() == "mine"
    assert "is no run folder" in user_error(capsys, "eval", "--run-dir", "run")
    (here / "a" / "checkpoints").mkdir(parents=True)
    (here / "a" / "config.yaml").touch()
    assert "Did you mean a?" in user_error(capsys, "eval", "--run-dir", "a/checkpoints")


def test_a_full_disk_at_the_start_gives_an_error(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    assert "No space for a run" in user_error(capsys, *tiny, "--run-dir", here / "run")
    assert contents(here) == {}


def run_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error message of a run that fails after it has started, and so printed something."""
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 3
    assert "Traceback" not in err
    return err


def test_a_full_disk_at_a_checkpoint_gives_an_error(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, "run")
    before = contents(here / "run/checkpoints")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("dreamerjax.runs.checkpoint.store._write", full)
        error = run_error(capsys, "--run-dir", "run", "--env-steps", "62")
    assert "Checkpoint 62 could not be written" in error
    assert "no space left" in error
    assert "Older checkpoints are intact" in error
    assert contents(here / "run/checkpoints") == before
    assert cli.main(["--run-dir", "run", "--env-steps", "62"]) == 0


def test_a_full_disk_at_metrics_gives_an_error(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, "run")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MetricsWriter, "write", full)
    assert "No space left on device" in run_error(capsys, "--run-dir", "run", "--env-steps", "62")


def test_a_damaged_config_in_the_run_folder_gives_an_error(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    (here / "run/config.yaml").write_text("seed: 1\ntrain: {ratio: 8\n")
    for command in (["--env", "cartpole"], ["eval"]):
        assert "config.yaml, line 3 is not YAML" in user_error(capsys, *command, "--run-dir", "run")
    (here / "run/config.yaml").write_text("sede: 1\n")
    assert "unknown key `sede`" in user_error(capsys, "--run-dir", "run")


def damage(path: Path) -> None:
    """Truncates the largest file of the train state to half its size."""
    files = [each for each in (path / "train_state").rglob("*") if each.is_file()]
    largest = max(files, key=lambda each: each.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def test_a_damaged_checkpoint_is_skipped_with_a_note(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    damage(here / "run/checkpoints/0000000060")
    capsys.readouterr()
    assert cli.main(["eval", "--run-dir", "run", "--episodes", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["episodes"] == 1
    assert err.startswith("note: checkpoint 60 is damaged")
    assert cli.main(["--run-dir", "run"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Checkpoint 60 is damaged" in out
    assert "using 40" in out
    assert "Resumed at 40 environment steps" in out
    assert json.loads((here / "run/summary.json").read_text())["env_steps"] == 60
    assert restore_raw(here / "run/checkpoints")[1].skipped == (), "the damaged one was replaced"


def test_a_run_with_only_damaged_checkpoints_gives_an_error(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    for path in (here / "run/checkpoints").iterdir():
        damage(path)
    before = contents(here / "run")
    assert "is damaged" in run_error(capsys, "--run-dir", "run")
    assert "is damaged" in user_error(capsys, "eval", "--run-dir", "run")
    kept = {name: content for name, content in contents(here / "run").items() if not name.endswith(".lock")}
    assert kept == {name: content for name, content in before.items() if not name.endswith(".lock")}
    run_error(capsys, *tiny, "--run-dir", "new", "--init-from", "run")
    assert not (here / "new").exists()


# Settings


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


def test_version_prints_jax_and_the_back_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    versions, backend = capsys.readouterr().out.splitlines()
    assert versions.startswith(f"dreamerjax {dreamerjax.__version__}, python ")
    assert f", jax {jax.__version__}, " in versions
    assert backend.startswith("cpu (")


@pytest.mark.parametrize("columns", ["80", "300"])
def test_help_explains_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("--init-from RUN" in line for line in lines)
    defaults = flatten(Config())
    for key in KEYS:
        (at,) = (i for i, line in enumerate(lines) if re.match(rf"  --{key.replace('_', '-')}(,| |$)", line))
        after = itertools.takewhile(lambda line: line.startswith(" " * 8), lines[at + 1 :])
        text = " ".join(line.strip() for line in after)
        sentence, _, facts = text.rpartition(" [")
        assert sentence, f"{key} has no sentence: a comment after the field in dreamerjax/config/hyperparameters.py"
        if isinstance(defaults[key], int | float) and not isinstance(defaults[key], bool):
            assert facts.endswith(f"default: {defaults[key]}]")
    assert max(map(len, lines)) <= int(columns)


def test_help_of_every_command_fits_in_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    commands = "eval show report play export selfcheck bench compare experiment sweep lineage"
    for command in commands.split():
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("usage: ")
        assert max(map(len, lines)) <= 100


def test_the_help_of_a_setting_is_the_comment_in_the_source() -> None:
    @dataclasses.dataclass(frozen=True)
    class Section:
        rows: int = 1  # rows in a batch
        name: str = ""  # a name that is long enough
        # to continue in the next line
        # and in a third one
        mode: bool = True  # its own line
        # A comment that starts with a capital letter continues none.
        plain: int = 0

    assert settings_help._comments(Section) == {
        "rows": "rows in a batch",
        "name": "a name that is long enough to continue in the next line and in a third one",
        "mode": "its own line",
    }
    assert settings_help.SENTENCES.keys() <= set(KEYS)


def test_ctrl_c_before_training_creates_no_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dreamerjax.cli.training.inspect_env", interrupted)
    assert cli.main(["--env", "cartpole"]) == 130
    assert contents(here) == {}


# A whole run


def test_the_files_of_a_run_folder(trained: Path) -> None:
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints", "tensorboard"} <= {
        path.name for path in trained.iterdir()
    }
    assert not list(trained.glob(".tmp-*"))
    assert not (trained / ".pid").exists()

    stored = yaml.safe_load((trained / "config.yaml").read_text())
    assert set(flatten(stored)) == set(KEYS), "complete"
    config = combine([read_yaml(trained / "config.yaml")])
    assert (config.env.name, config.env.id, config.train.env_steps) == ("cartpole", "gym:CartPole-v1", 60)
    assert (config.agent.model.deter, config.agent.precision) == (16, "float32")

    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert list(line)[:3] == ["step", "update", "wall_seconds"]
    for name in ("step", "update", "wall_seconds"):
        series = [line[name] for line in lines]
        assert series == sorted(series)
    names = {name for line in lines for name in line}
    assert {"episode/return", "episode/length", "speed/updates_per_second", "speed/env_steps_per_second"} <= names
    assert {f"eval/{name}" for name in EVALUATION} <= names
    assert {"train/reconstruction_loss", "train/actor_loss", "train/critic_loss"} <= names
    assert read_metrics(trained / "metrics.jsonl")[-1]["step"] == 60

    events = list((trained / "tensorboard").glob("events.out.tfevents.*"))
    assert len(events) == 2, "one for each process that trained"
    assert b"episode/return" in min(events).read_bytes()
    assert all(b"eval/return_mean" in file.read_bytes() for file in events)
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["0000000040", "0000000060"]


def test_the_summary_of_a_run(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    expected = {
        *("env", "seed", "backend", "device", "versions", "git_commit", "env_steps", "updates", "wall_seconds"),
        *("compile_seconds", "solved", "solved_at", "eval"),
    }
    assert expected <= set(summary)
    assert set(summary["eval"]) == EVALUATION
    assert (summary["env"], summary["seed"], summary["backend"]) == ("cartpole", 0, "cpu")
    assert (summary["env_steps"], summary["updates"], summary["stopped"]) == (60, 44, "budget")
    assert (summary["solved"], summary["solved_at"]) == (False, None)
    assert summary["eval"]["episodes"] == 3
    assert summary["versions"]["jax"] == jax.__version__
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]


def test_the_final_paragraph_of_a_run(here: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained, "run")
    capsys.readouterr()
    assert cli.main(["--run-dir", "run", "--env-steps", "60", "--env.solve-return", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Resumed at 60 environment steps and 44 updates." in out
    assert "Solved: cartpole reaches a mean return of" in out
    assert "Everything is in run." in out
    assert "python run.py eval --run-dir run --episodes 100" in out
    assert "\x1b" not in out, "no terminal, no escape codes"
    summary = json.loads((here / "run/summary.json").read_text())
    assert summary["solved"] is True
    assert set(summary["solved_at"]) == {"env_steps", "updates", "wall_seconds"}


def test_a_resumed_run_continues_to_a_larger_budget(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "run")
    lines = (here / "run/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert cli.main([*tiny, "--run-dir", "run", "--env-steps", "80"]) == 0
    assert "Resumed at 60 environment steps" in capsys.readouterr().out
    summary = json.loads((here / "run/summary.json").read_text())
    assert (summary["env_steps"], summary["updates"]) == (80, 64)
    assert (here / "run/metrics.jsonl").read_bytes().startswith(lines)
    assert yaml.safe_load((here / "run/config.yaml").read_text())["train"]["env_steps"] == 80


# Evaluation


def test_eval_json_prints_one_object_and_nothing_else(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for seed in (0, 0, 1):
        before = contents(trained)
        capsys.readouterr()
        assert cli.main(["eval", "--run-dir", str(trained), "--episodes", "5", "--seed", str(seed), "--json"]) == 0
        out, err = capsys.readouterr()
        # On a busy machine, progress is printed every few seconds.
        assert all(re.fullmatch(r"\d of 5 episodes, step \d+", line) for line in err.splitlines())
        assert out.count("\n") == 1
        evaluation = json.loads(out)
        assert set(evaluation) == EVALUATION
        assert evaluation["episodes"] == 5
        assert evaluation["return_min"] <= evaluation["return_mean"] <= evaluation["return_max"]
        assert contents(trained) == before, "an evaluation only reads"
        printed.append(out)
    assert printed[0] == printed[1]
    assert printed[0] != printed[2]


def test_eval_prints_a_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["eval", "--run-dir", str(trained), "--episodes", "3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("cartpole after 60 environment steps: return ")
    assert "over 3 greedy episodes" in out


# --init-from and export


def test_an_actor_trained_in_the_world_model_of_another_run(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*tiny, "--run-dir", "model", "--train.mode", "world_model"]) == 0
    before = contents(here / "model")
    start = ["--train.mode", "actor_critic", "--init-from", "model"]
    capsys.readouterr()
    assert cli.main([*tiny, "--run-dir", "actor", *start]) == 0
    assert "Starts from model at 40 environment steps." in capsys.readouterr().out
    assert contents(here / "model") == before
    model, actor = (restore_raw(here / name / "checkpoints")[0] for name in ("model", "actor"))
    jax.tree.map(np.testing.assert_array_equal, model["params"]["world_model"], actor["params"]["world_model"])
    for part in ("actor", "critic"):
        pairs = zip(*(jax.tree.leaves(state["params"][part]) for state in (model, actor)), strict=True)
        assert any((left != right).any() for left, right in pairs), f"the {part} has learned"
    assert json.loads((here / "actor/summary.json").read_text())["updates"] == 24

    # The same command again resumes the run; it does not start from --init-from again.
    assert cli.main([*tiny, "--run-dir", "actor", *start]) == 0
    out = capsys.readouterr().out
    assert "Resumed at 40 environment steps" in out
    assert "Starts from" not in out


def test_init_from_another_architecture_or_environment_gives_an_error(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(trained)
    error = user_error(capsys, *tiny, "--agent.model.deter", "32", "--init-from", trained)
    assert "agent.model.deter: 16 there, 32 here" in error
    error = user_error(capsys, *tiny, "--env", "gym:Acrobot-v1", "--init-from", trained)
    assert "env.id: gym:CartPole-v1 there, gym:Acrobot-v1 here" in error
    assert contents(trained) == before
    assert contents(here) == {}


def test_a_fork_and_a_resumed_run_print_changed_settings(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "source")
    capsys.readouterr()
    fork = [
        "--run-dir",
        "fork",
        "--init-from",
        "source",
        "--env-steps",
        "17",
        "--backend",
        "cpu",
        "--log.video-every=0",
    ]
    assert cli.main([*fork, "--seed", "5", "--agent.critic.learning-rate", "1e-5", "--no-log.report"]) == 0
    out = capsys.readouterr().out
    assert "Starts from source at 60 environment steps." in out
    (line,) = (line for line in out.splitlines() if line.startswith("Its settings, but for "))
    for change in ("seed: 0 -> 5", "agent.critic.learning_rate: 0.001 -> 1e-05", "train.env_steps: 60 -> 17"):
        assert change in line
    assert "The budget of 17 environment steps allows" in out
    stored, source = (combine([read_yaml(here / name / "config.yaml")]) for name in ("fork", "source"))
    assert stored.agent.model == source.agent.model
    assert (stored.train.ratio, stored.eval.every) == (8, 20), "its parent's, not those of cartpole"

    assert cli.main(["--run-dir", "fork", "--agent.critic.learning-rate", "2e-5", "--recipe", "laptop"]) == 0
    out = capsys.readouterr().out
    assert "Settings that have changed since: agent.critic.learning_rate: 1e-05 -> 2e-05." in out
    assert "--recipe changes nothing" in out


def test_an_export_cannot_be_resumed_but_can_be_forked(
    here: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", "--run-dir", str(trained), "--out", "given"]) == 0
    before = contents(here)
    error = user_error(capsys, "--run-dir", "given")
    assert "given cannot be resumed: its checkpoint 60 holds weights only, as an export does." in error
    assert "--init-from given" in error
    assert contents(here) == before
    quiet = ["--env-steps", "17", "--backend", "cpu", "--log.video-every=0", "--no-log.report"]
    assert cli.main(["--init-from", "given", "--run-dir", "run", *quiet]) == 0


def test_init_from_skips_a_damaged_checkpoint_with_a_note(
    here: Path, trained: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "source")
    damage(here / "source/checkpoints/0000000060")
    capsys.readouterr()
    assert cli.main([*tiny, "--run-dir", "run", "--init-from", "source", "--env-steps", "17"]) == 0
    out = capsys.readouterr().out
    assert "heckpoint 60 is damaged" in out
    assert "Starts from source at 40 environment steps." in out


# Images, disk storage and faulty environments


def test_training_from_pixels_makes_films_and_resumes(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    image = ["--env.image.height", "32", "--env.image.width", "48"]
    arguments = [*tiny, "--obs", "pixels", *image, "--run-dir", "seen", "--log.video-every", "30"]
    assert cli.main(arguments) == 0
    films = {path.name for path in (here / "seen" / "videos").iterdir()}
    assert films == {f"00000000{step}_{name}.mp4" for step in (30, 40) for name in ("episode", "dream_image")}
    assert "Filmed: seen/videos/0000000040_episode.mp4" in capsys.readouterr().out
    assert any(b"video/dream_image" in path.read_bytes() for path in (here / "seen").rglob("events.out.tfevents.*"))

    assert cli.main([*arguments, "--env-steps", "60"]) == 0, "resumed with the same flags"
    assert cli.main(["--run-dir", "seen", "--env-steps", "65"]) == 0, "resumed without flags"
    capsys.readouterr()
    assert cli.main(["eval", "--run-dir", "seen", "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    message = user_error(capsys, "--run-dir", "seen", "--obs", "state")
    assert "belongs to another environment or architecture: env.obs" in message


def test_a_replay_buffer_on_disk_is_resumed(here: Path, tiny: list[str]) -> None:
    image = ["--obs", "both", "--env.image.height", "16", "--env.image.width", "16"]
    arguments = [*tiny, *image, "--run-dir", "a", "--replay.storage", "disk"]
    assert cli.main(arguments) == 0
    (ring,) = (here / "a" / "replay").glob("*image.ring")
    stored = np.memmap(ring, np.uint8, "r", shape=(1000, 16, 16, 1))
    rows = np.flatnonzero(stored.any((1, 2, 3)))
    assert len(rows) >= 40
    assert cli.main([*arguments, "--env-steps", "60"]) == 0
    assert len(np.flatnonzero(stored.any((1, 2, 3)))) >= 60


def test_a_run_is_saved_when_its_environment_raises(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment raises at step 30; the run resumes from there with new episodes."""
    monkeypatch.setenv("FAULT_ONCE", str(here / "mark"))
    monkeypatch.setattr("tests.envs.faulty_envs.FAULTY_STEP", 30)
    monkeypatch.setattr("tests.envs.faulty_envs.LENGTH", 50)
    arguments = [*tiny[2:], "--env", "tests.envs.faulty_envs:raises", "--run-dir", "a", "--eval.every", "0"]
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert "tests.envs.faulty_envs:raises: it raised RuntimeError: the arm is stuck (copy 0, step 30)." in error
    assert restore_raw(here / "a" / "checkpoints")[1].step == 29
    assert cli.main(arguments) == 0
    assert "Resumed at 29 environment steps" in capsys.readouterr().out


def test_interrupted_episodes_are_reported_and_counted(
    here: Path, tiny: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*tiny[2:], "--env", "tests.envs.faulty_envs:shows_nan", "--run-dir", "a"]
    assert cli.main(arguments) == 2
    assert "the observation 'state' is not finite" in capsys.readouterr().err
    arguments += ["--env.on-bad-observation", "skip-episode"]
    assert cli.main(arguments) == 2
    assert (
        "Episodes to evaluate, 12 of 12, were cut short. The last: tests.envs.faulty_envs:s" in capsys.readouterr().err
    )
    monkeypatch.setattr("tests.envs.faulty_envs.LENGTH", 6)
    assert cli.main([*arguments, "--env-steps", "60"]) == 0
    rows = read_metrics(here / "a" / "metrics.jsonl")
    counted = [row["env/interruptions"] for row in rows if "env/interruptions" in row]
    assert counted == list(range(1, len(counted) + 1))
    assert len(counted) >= 2, "every episode of the first 20 steps, at its step 7"
