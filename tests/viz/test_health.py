"""health.png: one chart for each panel, for any number of panels."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine
from dreamerjax.viz import health
from dreamerjax.viz.panels import PANELS


@pytest.mark.parametrize("count", [3, 4])
def test_each_panel_has_a_chart_with_the_axis_of_steps_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    lines = [{"step": step, "train/kl": 2.0, "train/reward_loss": 5.0 / step} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    monkeypatch.setattr(health, "PANELS", PANELS[:count])
    health.draw_health(tmp_path, combine(read_env("cartpole")), tmp_path / "health.png")
    charts = figures[0].axes
    assert [axes.get_title(loc="left") for axes in charts] == [panel.title for panel in PANELS[:count]]
    below = [axes.get_title(loc="left") for axes in charts if axes.get_xlabel() == "environment steps"]
    assert below == [panel.title for panel in PANELS[count - 2 : count]]
