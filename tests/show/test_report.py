"""The page of a run: whole, self-contained, escaped, and written from whatever is there."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dreamerjax import cli
from dreamerjax.host.envs import EnvError
from dreamerjax.host.fidelity import Compared
from dreamerjax.host.watch import RULES
from dreamerjax.show import film, report
from dreamerjax.show.exhibits import choose
from dreamerjax.show.film import Filmed, filmed
from dreamerjax.show.health import PANELS, REMEDIES, SOUND
from dreamerjax.show.trust import errors_of, survival_of
from dreamerjax.types import ObsSpec, Rows, Spaces
from tests.test_cli import TINY, mistake

ROOT = Path(__file__).parents[2]
NASTY = """<script>alert("a")<-script> & 'b'"""
SECTIONS = ["learning", "episodes", "dreams", "trust", "health", "settings", "cost"]
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Page(HTMLParser):
    """A page, read as a browser would; tags that are not closed properly are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    def all(self, *names: str) -> list[dict[str, str | None]]:
        """The attributes of all tags of these names."""
        return [attributes for tag, attributes in self.tags if tag in names]

    def values(self, *names: str) -> list[str]:
        """The values of all attributes of these names."""
        return [attributes[name] or "" for _, attributes in self.tags for name in names if name in attributes]


def page_of(run_dir: Path) -> Page:
    return Page((run_dir / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a name that nobody should have, its films, and the page that its training ended with."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(TINY)
    run = folder / NASTY
    arguments = ["--env", "cartpole", "--backend", "cpu", "--config", str(folder / "tiny.yaml"), "--log.report"]
    assert cli.main([*arguments, "--log.video-every", "20", "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to change, without the page."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("report.html"))
    return copy


def test_training_ends_with_the_page_and_names_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["--run-dir", str(run), "--env-steps", "50"]) == 0
    assert re.search(rf"  see everything +{re.escape(str(run))}/report.html", capsys.readouterr().out)
    assert "50 environment steps" in page_of(run).text


def test_a_page_that_cannot_be_made_is_a_note(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run_dir: Path) -> Path:
        raise ValueError("the pencil broke")

    monkeypatch.setattr(report, "write_report", fail)
    capsys.readouterr()
    assert cli.main(["--run-dir", str(run)]) == 0
    out = capsys.readouterr().out
    assert "No report: the pencil broke" in out
    assert "see everything" not in out


def test_it_needs_nothing_from_outside(trained: Path) -> None:
    page = page_of(trained)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "script-src" not in policy
    assert not page.all("script", "link", "iframe", "object", "embed", "base", "form")
    addresses = page.values("src", "href", "poster", "srcset", "xlink:href", "data", "action")
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    html = (trained / "report.html").read_text()
    assert re.findall(r"url\((?!#)", html) == []
    assert "@import" not in html
    assert not any(re.match(r"on[a-z]+$", name) for _, attributes in page.tags for name in attributes)


def test_every_section_is_there_and_can_be_reached(trained: Path) -> None:
    page = page_of(trained)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert [attributes["id"] for attributes in page.all("h2")] == SECTIONS
    assert {href for href in page.values("href") if href[1:] in SECTIONS} == {f"#{name}" for name in SECTIONS}
    assert all(href[1:] in ids for href in page.values("href"))
    assert len(page.all("video")) >= 4, "episodes and dreams of two moments"
    assert len(page.all("svg")) >= 2 + 5 + 4, "learning, trust and health"
    assert "What differs from the defaults" in page.text
    assert re.search(r"train\. ratio\s+512\.0\s+8\.0", page.text)
    assert "git commit" in page.text


def test_it_can_be_read_in_any_way(trained: Path) -> None:
    page = page_of(trained)
    assert page.all("html") == [{"lang": "en"}]
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg", "video"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "no level is skipped"
    assert "prefers-color-scheme: dark" in (trained / "report.html").read_text()


def test_whatever_a_file_says_is_text(trained: Path, run: Path) -> None:
    assert NASTY in page_of(trained).text
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"device": NASTY, "versions": {NASTY: NASTY}}))
    (run / "videos" / "0000000030_<img src=x onerror=alert(1)>.mp4").write_bytes(b"no film")
    report.write_report(run)
    page = page_of(run)
    assert page.text.count(NASTY) == 3
    assert not page.all("script")
    assert all(source.startswith("data:") for source in page.values("src"))


def test_without_a_checkpoint_it_shows_what_the_metrics_have(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "videos")
    (run / "summary.json").unlink()
    capsys.readouterr()
    assert cli.main(["report", "--run-dir", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    page = page_of(run)
    assert "There is no agent to let dream" in page.text
    assert f"python run.py show --run-dir {run}" in page.text
    assert "under way" in page.text
    assert "40 environment steps" in page.text
    assert len(page.all("svg")) >= 2 + 4


def test_without_its_environment_dreams_are_compared_with_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any, **options: Any) -> None:
        raise EnvError("gymnasium is not installed")

    monkeypatch.setattr("dreamerjax.host.fidelity.make_env", missing)
    report.write_report(run)
    assert "It takes the environment to compare dreams with: gymnasium is not installed" in page_of(run).text


def test_mistakes_are_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run folder" in mistake(capsys, "report", "--run-dir", tmp_path / "none")
    assert "--run-dir" in mistake(capsys, "report")
    (run / "metrics.jsonl").write_text("not JSON\n")
    assert "metrics.jsonl, line 1: expected a JSON object" in mistake(capsys, "report", "--run-dir", run)
    (run / "metrics.jsonl").write_text("")
    assert "nothing has happened yet" in mistake(capsys, "report", "--run-dir", run)
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl cannot be read: No such file" in mistake(capsys, "report", "--run-dir", run)
    assert not (run / "report.html").exists()


def test_an_alert_comes_with_what_to_do(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "update": 24, "wall_seconds": 9.0, "train/kl": null}\n')
    report.write_report(run)
    text = page_of(run).text
    assert re.search(r"\d alerts?; docs/research.md has what each means", text)
    assert "Not a number" in text
    assert f"What to do: {REMEDIES['not a number']}" in text


def test_each_alert_has_its_remedy_and_each_panel_its_sentence() -> None:
    assert set(REMEDIES) == set(RULES)
    assert set(SOUND) == set(PANELS)
    research = (ROOT / "docs" / "research.md").read_text()
    assert all(f"*{name}*" in research for name in REMEDIES)


def test_a_few_moments_are_shown_and_the_newest_first_of_what_there_is_room_for(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for step in range(1000, 8000, 1000):
        for name in ("episode.mp4", "dream_scene.mp4", "dream.png"):
            (tmp_path / "videos" / f"{step:010d}_{name}").write_bytes(bytes(300))
    (tmp_path / "videos" / "notes_of_mine.txt").touch()
    films = filmed(tmp_path)
    assert len(films) == 21
    assert films[0] == Filmed(1000, "dream", tmp_path / "videos/0000001000_dream.png")
    shown, left_out = choose(films)
    assert sorted({one.env_steps for one in shown}) == [1000, 3000, 5000, 7000]
    assert len(shown) == 12
    assert sorted([*shown, *left_out]) == sorted(films)
    shown, _ = choose(films, most_bytes=1700)  # four, as base64 has them
    assert [one.env_steps for one in shown] == [5000, 7000, 7000, 7000]
    assert choose([]) == ([], [])
    assert filmed(tmp_path / "nowhere") == []


# How far a dream can be trusted


def compared(*, obs: dict[str, np.ndarray], dreamed: dict[str, np.ndarray], cont: np.ndarray, **flags: Any) -> Compared:
    """Stretches and one dream of each, [H, N, ...]."""
    steps, count = cont.shape
    off = np.zeros((steps, count), bool)
    flags = {"is_first": off, "is_last": off, "is_terminal": off} | flags
    rows = Rows(obs, np.zeros((steps, count, 1)), np.zeros((steps, count)), **flags)
    dream: Any = SimpleNamespace(obs=dreamed, cont=cont)
    return Compared(rows, [dream], np.cumprod(~rows.is_first, axis=0).astype(bool))


def test_errors_of_numbers_pictures_and_integers() -> None:
    specs = (ObsSpec("state", (2,)), ObsSpec("image", (1, 2, 1)), ObsSpec("map", (2, 2), 5))
    obs = {
        "state": np.array([[[0.0, 1.0]] * 2, [[2.0, 1.0]] * 2]),
        "image": np.full((2, 2, 1, 2, 1), 100, np.uint8),
        "map": np.zeros((2, 2, 2, 2), np.uint8),
    }
    dreamed = {name: values.copy() for name, values in obs.items()}
    dreamed["state"][1, 0, 0] += 3
    dreamed["image"][:, :, :, 0] += 51
    dreamed["map"][0, 0, 0] = 4
    first = np.array([[False, False], [False, True]])
    made = compared(obs=obs, dreamed=dreamed, cont=np.ones((2, 2)), is_first=first)
    errors = {error.name: error for error in errors_of(made, Spaces(specs, ()))}
    assert list(errors) == ["state[0]", "state[1]", "image", "map"]
    nan = np.nan
    np.testing.assert_allclose(errors["state[0]"].values, [[0, 0], [3, nan]])
    np.testing.assert_allclose(errors["image"].values, [[0.1, 0.1], [0.1, nan]])
    np.testing.assert_allclose(errors["map"].values, [[0.5, 0], [0, nan]])
    assert errors["state[0]"].scale == pytest.approx(np.std([0, 0, 2]))
    assert errors["state[1]"].scale == 1, "it never changes"
    assert [errors["state[0]"].middle(steps) for steps in (1, 2, 9)] == [0, 3, 3]


def test_survival_counts_a_stretch_until_a_time_limit() -> None:
    """The first ends at step 2, the second is cut short after step 1, the third goes on."""
    terminal, first = np.zeros((3, 3), bool), np.zeros((3, 3), bool)
    terminal[1, 0] = first[2, 0] = first[1, 1] = True
    cont = np.full((3, 3), 0.5)
    nothing: dict[str, np.ndarray] = {}
    dreamed, real = survival_of(compared(obs=nothing, dreamed=nothing, cont=cont, is_terminal=terminal, is_first=first))
    np.testing.assert_allclose(real, [1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(dreamed, [0.5, 0.25, 0.125])


def test_the_film_of_a_dream_has_a_name_that_the_page_knows() -> None:
    assert film.SCENE.startswith("dream")
