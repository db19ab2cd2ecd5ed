"""The settings of a small run, and what tests of commands share: error messages, folder contents, damage."""

from pathlib import Path

import pytest

from dreamerjax import cli

ROOT = Path(__file__).parents[2]
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


def run_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error message of a run that fails after it has started, and so printed something."""
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 3
    assert "Traceback" not in err
    return err


def damage(path: Path) -> None:
    """Truncates the largest file of the train state to half its size."""
    files = [each for each in (path / "train_state").rglob("*") if each.is_file()]
    largest = max(files, key=lambda each: each.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
