"""Invalid arguments, settings and environments: a short error, and no file is created."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

from dreamerjax.config import Config
from tests.cli.commands import ROOT, contents, user_error


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
