"""Comparison with published curves: windows, tasks and verdicts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamerjax import cli
from dreamerjax.config import ConfigError
from dreamerjax.runs.settings import combine, nested, read_yaml
from dreamerjax.study.published import DATA, Verdict, compare_published, our_curve, published_curve


def make_run(folder: Path, episodes: list[tuple[int, float]], *, env: str = "dmc:walker-walk", **env_options) -> Path:
    """A run folder with these (environment steps, return) of finished episodes."""
    folder.mkdir(parents=True)
    options = {"action_repeat": 2, **env_options}
    layer = {"env.id": env, "env.name": env, **{f"env.{key}": value for key, value in options.items()}}
    (folder / "config.yaml").write_text(json.dumps(nested(combine([layer]))))
    lines = [{"step": 1, "update": 0, "wall_seconds": 0.0, "train/loss": 3.0}]
    lines += [{"step": s, "update": 0, "wall_seconds": 0.0, "episode/return": r} for s, r in episodes]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def settings(run: Path):
    return combine([read_yaml(run / "config.yaml")])


def test_windows_are_ten_thousand_frames(tmp_path):
    run = make_run(tmp_path / "a", [(500, 1.0), (5000, 3.0), (5001, 10.0), (17_000, 20.0)])
    curve = our_curve(run, settings(run))
    np.testing.assert_array_equal(curve.frames, [10_000, 20_000, 40_000])  # two frames a step; nothing ended in between
    np.testing.assert_array_equal(curve.mean, [2.0, 10.0, 20.0])
    atari = make_run(tmp_path / "b", [(2500, 1.0), (2501, 5.0)], env="atari100k:pong", action_repeat=1)
    np.testing.assert_array_equal(our_curve(atari, settings(atari)).frames, [10_000, 20_000])  # four frames a step


def test_each_task_has_its_own_curve(tmp_path):
    data = json.loads(DATA.read_text())
    cases = {
        ("dmc:walker-walk", "auto"): data["dmc_proprio"]["dmc_walker_walk"],
        ("dmc:finger-turn_easy", "state"): data["dmc_proprio"]["dmc_finger_turn_easy"],
        ("dmc:walker-walk", "pixels"): data["dmc_vision"]["dmc_walker_walk"],
        ("atari100k:boxing", "auto"): data["atari100k"]["atari_boxing"],
    }
    for number, ((env, obs), expected) in enumerate(cases.items()):
        curve = published_curve(settings(make_run(tmp_path / str(number), [], env=env, obs=obs)))
        np.testing.assert_array_equal(
            np.stack([curve.frames, curve.mean, curve.lowest, curve.highest], -1), expected["points"]
        )
    with pytest.raises(ConfigError, match=r"no published curve of gym:CartPole-v1, expected a run of dmc:cartpole-bal"):
        published_curve(settings(make_run(tmp_path / "other", [], env="gym:CartPole-v1")))


@pytest.mark.parametrize(("ours", "word"), [(297.0, "below"), (298.0, "within"), (713.0, "within"), (714.0, "above")])
def test_the_verdict_uses_the_last_window(tmp_path, ours, word):
    run = make_run(tmp_path / "run", [(5000, 900.0), (49_000, ours)])
    (verdict,) = compare_published([run], tmp_path / "a.png")
    assert verdict == Verdict("run", 100_000, ours, 475.2, 297.6, 713.5)
    assert verdict.word == word
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 600


def test_the_command_prints_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [make_run(tmp_path / name, [(49_000, value)]) for name, value in (("a", 100.0), ("b", 500.0))]
    assert cli.main(["compare", "--published", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    assert "a: return 100.0 at 100,000 frames, below the published 297.6 to 713.5 (mean 475.2)." in out
    assert "b: return 500.0 at 100,000 frames, within the published" in out
    assert (tmp_path / "published.png").is_file()
    assert cli.main(["compare", "--json", "--out", "b.png", "--published", str(runs[0])]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["verdict"], row["ours"], row["frames"]) == ("below", 100.0, 100_000)


def test_invalid_runs_give_an_error(tmp_path, capsys):
    walker = make_run(tmp_path / "walker", [(49_000, 1.0)])
    balance = make_run(tmp_path / "balance", [(49_000, 1.0)], env="dmc:cartpole-balance")
    early = make_run(tmp_path / "early", [])
    cases = {
        (tmp_path / "nowhere",): "There is no folder",
        (walker, balance): "The runs have different tasks, dmc:cartpole-balance, dmc:walker-walk; expected one.",
        (early,): "early has no finished episode in the published",
    }
    for runs, message in cases.items():
        assert cli.main(["compare", "--out", str(tmp_path / "x.png"), "--published", *map(str, runs)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
    outside = tmp_path / "no" / "such.png"
    assert cli.main(["compare", "--out", str(outside), "--published", str(walker)]) == 2
    assert "No such file or directory" in capsys.readouterr().err
