"""The report of a run: complete, self-contained, escaped, and written even if parts are missing."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dreamerjax import cli
from dreamerjax.envs import EnvError
from dreamerjax.runs.lineage import Event
from dreamerjax.runs.load import load_run
from dreamerjax.viz import report
from dreamerjax.viz.curves import draw_returns, return_limits, training_caption
from dreamerjax.viz.learning import Learning
from dreamerjax.viz.panels import PANELS
from dreamerjax.viz.verdict import unclear
from tests.cli.commands import TINY, user_error

NASTY = """<script>alert("a")<-script> & 'b'"""
SECTIONS = ["learning", "episodes", "dreams", "accuracy", "diagnostics", "settings", "cost"]
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}


class Page(HTMLParser):
    """A parsed page; tags that are not closed properly are an error."""

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
    """A finished run with films and a report, and with a name that needs escaping."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(TINY)
    run = folder / NASTY
    arguments = ["--env", "cartpole", "--backend", "cpu", "--config", str(folder / "tiny.yaml"), "--log.report"]
    assert cli.main([*arguments, "--log.video-every", "20", "--run-dir", str(run)]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run to change, without the report."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("report.html"))
    return copy


def test_training_writes_the_report_and_prints_its_path(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["--run-dir", str(run), "--env-steps", "50"]) == 0
    assert re.search(rf"  see everything +{re.escape(str(run))}/report.html", capsys.readouterr().out)
    assert "50 environment steps" in page_of(run).text


def test_a_report_that_fails_is_a_note(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run_dir: Path) -> Path:
        raise ValueError("an error in the report")

    monkeypatch.setattr(report, "write_report", fail)
    capsys.readouterr()
    assert cli.main(["--run-dir", str(run)]) == 0
    out = capsys.readouterr().out
    assert "No report: an error in the report" in out
    assert "see everything" not in out


def test_the_report_is_self_contained(trained: Path) -> None:
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


def test_every_section_exists_and_is_linked(trained: Path) -> None:
    page = page_of(trained)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert [attributes["id"] for attributes in page.all("h2")] == SECTIONS
    assert {href for href in page.values("href") if href[1:] in SECTIONS} == {f"#{name}" for name in SECTIONS}
    assert all(href[1:] in ids for href in page.values("href"))
    assert len(page.all("video")) >= 4, "episodes and dreams of two moments"
    assert len(page.all("svg")) >= 2 + 5 + 4, "learning, accuracy and diagnostics"
    assert "Settings that differ from the defaults" in page.text
    assert re.search(r"train\. ratio\s+512\.0\s+8\.0", page.text)
    assert "git commit" in page.text


def test_the_report_is_accessible(trained: Path) -> None:
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


def test_the_content_of_files_is_escaped(trained: Path, run: Path) -> None:
    assert NASTY in page_of(trained).text
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"device": NASTY, "versions": {NASTY: NASTY}}))
    (run / "videos" / "0000000030_<img src=x onerror=alert(1)>.mp4").write_bytes(b"no film")
    report.write_report(run)
    page = page_of(run)
    assert page.text.count(NASTY) == 3
    assert not page.all("script")
    assert all(source.startswith("data:") for source in page.values("src"))


def test_a_report_without_checkpoint_shows_the_metrics(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "videos")
    (run / "summary.json").unlink()
    capsys.readouterr()
    assert cli.main(["report", "--run-dir", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/report.html\n"
    page = page_of(run)
    assert "The agent cannot be loaded" in page.text
    assert f"python run.py show --run-dir {run}" in page.text
    assert "under way" in page.text
    assert "40 environment steps" in page.text
    assert len(page.all("svg")) >= 2 + 4


def test_a_report_without_the_environment_has_no_dream_accuracy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any, **options: Any) -> None:
        raise EnvError("gymnasium is not installed")

    monkeypatch.setattr("dreamerjax.inference.open_loop.make_env", missing)
    report.write_report(run)
    assert (
        "The comparison of dreams with episodes needs the environment: gymnasium is not installed" in page_of(run).text
    )


def test_invalid_run_folders_give_an_error(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "There is no folder" in user_error(capsys, "report", "--run-dir", tmp_path / "none")
    assert "--run-dir" in user_error(capsys, "report")
    (run / "metrics.jsonl").write_text("not JSON\n")
    assert "metrics.jsonl, line 1: expected a JSON object" in user_error(capsys, "report", "--run-dir", run)
    (run / "metrics.jsonl").write_text("")
    assert "metrics.jsonl is empty" in user_error(capsys, "report", "--run-dir", run)
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl cannot be read: No such file" in user_error(capsys, "report", "--run-dir", run)
    assert not (run / "report.html").exists()


def test_an_alert_is_shown_with_its_remedy(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "update": 24, "wall_seconds": 9.0, "train/kl": null}\n')
    report.write_report(run)
    text = page_of(run).text
    assert re.search(r"\d alerts?; docs/research.md explains each", text)
    assert "Not a number" in text
    assert "Still active at the end. What to do: resuming does not help, because the parameters may be NaN" in text
    assert re.search(r": --agent.world-model.learning-rate [\d.e-]+ --agent.actor.learning-rate ", text)
    assert "Alert since step 40, not a number" in text, "the panel also shows it"


def test_each_panel_has_a_verdict(run: Path) -> None:
    """On a run that learned, on one that did not, and on one that was too short."""
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    assert "did not learn" not in page_of_returns(run, [20, 100, 300, 490])
    text = page_of_returns(run, [20, 21, 19, 20])
    assert "After 1,000 updates the return, 20.0, is no better than the" in text
    assert "Warning." in text
    text = page_of_returns(run, [20, 21], updates=10)
    assert "10 updates: too little to judge learning." in text
    assert "Unclear." in text


def page_of_returns(run: Path, means: list[float], *, updates: int = 1000) -> str:
    """The text of the report of a run with only these evaluations."""
    lines = [{"step": 9, "update": 0, "wall_seconds": 0.1, "episode/return": 20.0 + n} for n in range(3)]
    for n, mean in enumerate(means, 1):
        evaluation = {
            "eval/return_mean": mean,
            "eval/return_std": 1.0,
            "eval/return_min": 0.0,
            "eval/return_max": 500.0,
        }
        evaluation |= {"eval/episodes": 20, "eval/length_mean": 9.0}
        lines.append({"step": 500 * n, "update": updates, "wall_seconds": 1.0, **evaluation})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report.write_report(run)
    return page_of(run).text


@pytest.mark.parametrize(
    ("word", "stopped", "solved", "goal", "expected"),
    [
        ("solved", "solved", True, 475.0, "solved"),
        ("declined", "budget", True, 475.0, "solved earlier"),
        ("learned", "budget", False, 475.0, "not solved"),
        ("stalled", "budget", False, 475.0, "not solved"),
        ("learned", "budget", False, None, "learned"),
        ("did not learn", "budget", False, 475.0, "did not learn"),
        ("did not learn", "budget", False, None, "did not learn"),
        ("collapsed", "budget", False, None, "collapsed"),
        ("too short to judge", "budget", False, None, "too short to judge"),
        ("did not learn", "interrupted", False, None, "interrupted"),
    ],
)
def test_the_verdict_in_the_title(word: Any, stopped: str, solved: bool, goal: float | None, expected: str) -> None:
    summary = {"stopped": stopped, "solved": solved, "solve_return": goal}
    assert report._verdict(summary, Learning(word, unclear(""))) == expected


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [
        (0, "No training episode has ended yet."),
        (1, "Faint dots: 1 training episode, too few for a moving average."),
        (9, "Faint dots: 9 training episodes, too few for a moving average."),
        (10, "Faint line: 10 training episodes, moving average over 10."),
    ],
)
def test_the_caption_describes_the_training_returns(episodes: int, expected: str) -> None:
    rows: list[dict[str, Any]] = [{"step": n, "episode/return": float(n)} for n in range(episodes)]
    axes = Figure().subplots()
    draw_returns(axes, rows, training="training")
    drawn = [line for line in axes.lines if line.get_label() == "training"]
    assert training_caption(rows) == expected
    assert len(drawn) == bool(episodes)
    low, high = return_limits(rows, None)
    for line in drawn:
        assert len(line.get_xdata()) == (episodes if episodes < 10 else 1)
        assert low < min(line.get_ydata()) <= max(line.get_ydata()) < high


def charts_of(run: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Axes]:
    """Text alternative -> axes of every chart of a report."""
    drawn: dict[str, Axes] = {}

    def keep(draw: Any, alt: str) -> Markup:
        draw(drawn.setdefault(alt, Figure().subplots()))
        return Markup("<svg></svg>")

    monkeypatch.setattr(report, "chart", keep)
    report.write_report(run)
    return drawn


def test_a_fork_is_compared_with_its_parent(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All charts of returns have the same return axis."""
    parent = tmp_path / "parent"
    parent.mkdir()
    evaluation = {"eval/return_mean": 900.0, "eval/return_std": 1.0, "eval/episodes": 20}
    line = {"step": 500, "update": 9, "wall_seconds": 1.0, **evaluation}
    (parent / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    loaded = load_run(run)
    event = Event("forked", str(run), 500, str(parent), {"agent.actor.entropy_scale": (0.003, 0.01)}, None)
    monkeypatch.setattr(report, "load_run", lambda run_dir: loaded._replace(lineage=(*loaded.lineage, event)))
    monkeypatch.setattr(report, "_accuracy", lambda loaded, notes: notes.setdefault("accuracy", "") and None)
    report.write_report(run)
    text = page_of(run).text
    assert "Comparison with the parent run" in text
    assert "below the parent's 900.0 at the fork" in text
    assert "agent.actor.entropy_scale : 0.003 → 0.01" in text
    drawn = charts_of(run, monkeypatch)
    limits = {axes.get_ylim() for title, axes in drawn.items() if title.startswith("Greedy return")}
    assert len([title for title in drawn if title.startswith("Greedy return")]) == 3
    ((_, highest),) = limits
    assert highest > 900


def test_a_missing_parent_is_reported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_run(run)
    event = Event("forked", str(run), 500, "runs/gone", {}, None)
    monkeypatch.setattr(report, "load_run", lambda run_dir: loaded._replace(lineage=(*loaded.lineage, event)))
    monkeypatch.setattr(report, "_accuracy", lambda loaded, notes: notes.setdefault("accuracy", "") and None)
    report.write_report(run)
    assert "This run was forked from runs/gone, which does not exist any more" in page_of(run).text


def test_charts_of_diagnostics_have_the_same_axes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same environment steps; shares are drawn from 0 to 1."""
    shutil.rmtree(run / "checkpoints")
    drawn = {alt.partition(",")[0]: axes for alt, axes in charts_of(run, monkeypatch).items()}
    titles = [panel.title.partition(",")[0] for panel in PANELS if panel.title.partition(",")[0] in drawn]
    assert len(titles) >= 6
    assert {drawn[title].get_xlim() for title in titles} == {(0.0, 40.0)}
    shares = [panel.title.partition(",")[0] for panel in PANELS if panel.share]
    assert len({drawn[title].get_ylim() for title in shares if title in drawn}) == 1
