"""`eval`: JSON and a sentence."""

import json
import re
from pathlib import Path

import pytest

from dreamerjax import cli
from tests.cli.commands import EVALUATION, contents


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
