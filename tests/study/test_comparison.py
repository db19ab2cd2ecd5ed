"""Comparison of runs: tables, differing settings and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from dreamerjax import cli
from dreamerjax.config import family_name
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine, nested
from dreamerjax.study.comparison import differing_settings, read_runs, seed_warning


def write_run(folder: Path, *, returns: list[float], ended: bool = True, **settings) -> Path:
    """A run folder with an evaluation every 100 steps."""
    folder.mkdir(parents=True)
    config = combine([*read_env("cartpole"), {key.replace("__", "."): value for key, value in settings.items()}])
    (folder / "config.yaml").write_text(yaml.safe_dump(nested(config)))
    lines = [
        {"step": 100 * n, "update": n, "wall_seconds": float(n), "eval/return_mean": ret, "eval/return_std": 1.0}
        for n, ret in enumerate(returns, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if ended:
        solved_at = {"env_steps": 300, "updates": 3, "wall_seconds": 42.4} if max(returns) >= 475 else None
        summary = {
            "solved_at": solved_at,
            "updates": len(returns),
            "wall_seconds": 60.0,
            "git_commit": "abcdef123456+changes",
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "alerts.jsonl").write_text(
            json.dumps({"step": 1, "update": 1, "name": "replay frozen", "message": "x"})
        )
    return folder


def test_compare_prints_returns_outcomes_and_differing_settings(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", returns=[10, 200, 480])
    write_run(tmp_path / "b", returns=[11, 20], seed=3, agent__actor__learning_rate=1e-5)
    write_run(tmp_path / "c", returns=[9], ended=False)
    assert cli.main(["compare", "a", "b", "c"]) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert ["100", "10.0", "11.0", "9.0"] in rows
    assert ["300", "480.0", "-", "9.0"] in rows  # b is finished, c may still train
    assert ["agent.actor.learning_rate", "0.0004", "1e-05", "0.0004"] in rows
    family = family_name(combine(read_env("cartpole")))
    assert [
        "a",
        "0",
        family,
        "abcdef12+changes",
        "300 steps, 42 s",
        "480.0",
        "480.0",
        "3",
        "60 s",
        "replay frozen",
    ] in rows
    assert ["b", "3", family, "abcdef12+changes", "not", "20.0", "20.0", "2", "60 s", "replay frozen"] in rows
    assert ["c", "0", family, "-", "still training", "9.0", "9.0", "-", "-", "none"] in rows
    assert (tmp_path / "comparison.png").stat().st_size > 5000
    assert "One seed is too few to estimate the spread between seeds." in " ".join(out.split())


def test_compare_prints_json(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", returns=[10, 200])
    write_run(tmp_path / "b", returns=[11, 20], seed=3)
    assert cli.main(["compare", "a", "b", "--json", "--out", "x.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differing_settings"] == {}
    assert [run["returns"] for run in found["runs"]] == [[10, 200], [11, 20]]
    assert (tmp_path / "x.png").exists()


def test_different_families_are_compared_only_with_a_flag(tmp_path: Path, capsys) -> None:
    a = write_run(tmp_path / "a", returns=[10])
    b = write_run(tmp_path / "b", returns=[10], agent__model__hidden=32)
    out = ["--out", str(tmp_path / "x.png")]
    assert cli.main(["compare", str(a), str(b), *out]) == 2
    assert "agent.model.hidden: 64 there, 32 here" in capsys.readouterr().err
    assert cli.main(["compare", str(a), str(b), *out, "--across-families"]) == 0
    assert "agent.model.hidden" in capsys.readouterr().out


def test_three_seeds_of_each_setting_need_no_warning(tmp_path: Path) -> None:
    def runs(count: int, *, rate: float) -> list[Path]:
        where = tmp_path / f"{rate:g}"
        return [
            write_run(where / str(seed), returns=[1.0], seed=seed, agent__actor__learning_rate=rate)
            for seed in range(count)
        ]

    three, others, two = runs(3, rate=1e-4), runs(3, rate=2e-4), runs(2, rate=3e-4)
    assert seed_warning(read_runs([*three, *others])) == ""
    assert seed_warning(read_runs(three[:2])) == "", "one setting: nothing is compared"
    assert seed_warning(read_runs([*three, *two])).startswith("Two seeds are too few")


def test_runs_of_the_same_name_get_different_labels(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / x / "run", returns=[1.0, 2.0]) for x in "ab"])
    assert len({run.name for run in runs}) == 2
    assert differing_settings(runs) == {}
    np.testing.assert_array_equal(runs[0].steps, [100, 200])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "two or more run folders"),
        (["a"], "One run was given, expected two or more"),
        (["a", "missing"], "missing contains no run with an evaluation"),
        (["a", "--published", "a"], "or --published"),
    ],
)
def test_invalid_arguments(tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", returns=[10])
    assert cli.main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
