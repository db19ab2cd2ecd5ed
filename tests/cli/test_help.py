"""`--help` and `--version`."""

import dataclasses
import itertools
import re

import jax
import pytest

import dreamerjax
from dreamerjax import cli
from dreamerjax.cli import settings_help
from dreamerjax.config import Config, flatten
from dreamerjax.runs.settings import KEYS


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
