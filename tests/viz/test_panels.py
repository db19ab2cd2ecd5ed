"""Each panel of the health judges the run that it shows: healthy, sick, and too short to tell."""

import math
from typing import Any

import pytest

from dreamerjax.config import Config
from dreamerjax.monitoring.alerts import Watch
from dreamerjax.monitoring.rules import RULES
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine
from dreamerjax.viz.panels import PANELS, judge_panel
from dreamerjax.viz.verdict import Verdict
from tests.monitoring.test_alerts import DIAGNOSIS, SICK, TRAIN

BY_TITLE = {panel.title: panel for panel in PANELS}
NORMS = {f"train/grad_norm/{name}": 4.0 for name in ("prior", "posterior", "encoder", "decoder", "gru")}
HEALTHY = {
    **TRAIN,
    **DIAGNOSIS,
    **NORMS,
    "diagnosis/dream_kl_h1": 1.0,
    "diagnosis/dream_kl_h3": 2.0,
    "diagnosis/prior_agreement": 0.85,
    "diagnosis/dream_survival_h15": 0.7,
}
LOSSES = {"train/reconstruction_loss": [2.4, 0.5, 0.1, 0.08, 0.07], "train/reward_loss": [5.5, 2.0, 1.5, 1.2, 1.1]}
ENTROPY = [1.0, 0.8, 0.5, 0.3, 0.3]
RETURNS = [20.0, 100.0, 200.0, 300.0, 490.0]


@pytest.fixture(scope="module")
def config() -> Config:
    return combine(read_env("cartpole"))


def run(*, steps: int = 5, updates: int = 2000, **series: list[float]) -> list[dict[str, Any]]:
    """Lines of a healthy run, but for some metrics (`train__kl` is train/kl)."""
    columns = {name: [value] * steps for name, value in HEALTHY.items()} | LOSSES
    columns |= {"train/actor_entropy_share": ENTROPY, "eval/return_mean": RETURNS}
    columns |= {name.replace("__", "/", 1): values for name, values in series.items()}
    return [
        {"step": 500 * n + 500, "update": updates * (n + 1) // steps, "wall_seconds": 1.0}
        | {name: values[n] for name, values in columns.items() if n < len(values)}
        for n in range(steps)
    ]


def verdict(title: str, lines: list[dict[str, Any]], config: Config) -> Verdict:
    watch = Watch(config)
    for line in lines:
        watch.see(line)
    return judge_panel(BY_TITLE[title], lines, config, watch.active)


@pytest.mark.parametrize("title", BY_TITLE)
def test_a_healthy_run_is_sound(config: Config, title: str) -> None:
    found = verdict(title, run(), config)
    assert found.level == "sound", found.sentence


@pytest.mark.parametrize(
    ("title", "sick", "told"),
    [
        ("greedy return", {"eval__return_mean": [20.0] * 5}, "is no better than the 20.0 of its first evaluation"),
        (
            "policy's entropy, share of the most",
            {"train__actor_entropy_share": [1.0, *[0.99] * 4]},
            "still close to random",
        ),
        (
            "policy's entropy, share of the most",
            {"train__actor_entropy_share": [0.05] * 5, "eval__return_mean": [20.0] * 5},
            "Alert since 1,500 environment steps, entropy collapsed",
        ),
        (
            "reconstruction loss",
            {"train__reconstruction_loss": [2.4] * 5},
            "2.4 at first, 2.4 at the end: it does not fall",
        ),
        ("reconstruction loss", {"train__reconstruction_loss": [2.4, 0.1, 0.1, 0.5, 1.0]}, "after 0.1 at its lowest"),
        ("reward loss, nats", {"train__reward_loss": [5.54, 5.5, 5.5, 5.5, 5.5]}, "it does not fall"),
        (
            "reward loss, nats",
            {"train__reward_loss": [5.54, 2.0, 2.0, 2.0, math.nan]},
            "Not a number at the end: reward",
        ),
        ("value against what followed", {"diagnosis__value_mean": [200.0] * 5}, "dreams are better than the world"),
        ("value against what followed", {"diagnosis__value_mean": [5.0] * 5}, "lags behind"),
        ("world model's loss", {"diagnosis__world_model_loss_newest": [9.0] * 5}, "does not know its way"),
        ("KL by imagined steps, nats", {"diagnosis__dream_kl_h1": [30.0] * 5}, "the prior knows little"),
        ("prior and posterior agree, share of groups", {"diagnosis__prior_agreement": [0.45] * 5}, "45% of the groups"),
        ("probability to go on", {"diagnosis__dream_survival_h15": [0.1] * 5}, "10% of dreams go on after 15 steps"),
        ("gradient norms", {"train__grad_norm/decoder": [0.0] * 5}, "No gradient reaches decoder"),
    ],
)
def test_a_sick_run_is_not(config: Config, title: str, sick: dict[str, list[float]], told: str) -> None:
    found = verdict(title, run(**sick), config)
    assert found.level == "look", found.sentence
    assert told in found.sentence


@pytest.mark.parametrize("title", BY_TITLE)
def test_a_run_that_is_too_short_is_called_so(config: Config, title: str) -> None:
    lines = run(steps=2, updates=20, eval__return_mean=[20.0, 21.0])
    expected = "sound" if title == "gradient norms" else "unclear"
    assert verdict(title, lines, config).level == expected
    assert verdict(title, [{"step": 1, "update": 0, "wall_seconds": 0.1}], config).level == "unclear"


@pytest.mark.parametrize("name", [name for panel in PANELS for name in panel.alerts if name in SICK])
def test_a_panel_names_an_alert_that_stands_and_forgets_one_that_has_ceased(config: Config, name: str) -> None:
    (panel,) = [panel for panel in PANELS if name in panel.alerts]
    columns = {metric: [value] * 5 for metric, value in SICK[name].items()}
    columns |= {"eval/return_mean": [20.0] * 5} if name == "entropy collapsed" else {}
    sick = run(**columns)
    found = verdict(panel.title, sick, config)
    assert found.level == "look"
    assert f", {name}: " in found.sentence
    well = [line | {"step": line["step"] + 2500, "update": line["update"] + 2000} for line in run()]
    assert "Alert" not in verdict(panel.title, [*sick, *well], config).sentence


def test_every_alert_about_learning_belongs_to_a_panel() -> None:
    named = [name for panel in PANELS for name in panel.alerts]
    assert len(named) == len(set(named))
    assert set(RULES) - set(named) == {"collector starved", "replay frozen"}, "these are of the machine"


def test_a_model_that_was_trained_before_need_not_learn_again(config: Config) -> None:
    low = run(train__reconstruction_loss=[0.4] * 5, train__reward_loss=[1.2] * 5)
    for title in ("reconstruction loss", "reward loss, nats"):
        found = verdict(title, low, config)
        assert found.level == "sound"
        assert "had learned before this run began" in found.sentence


def test_where_there_is_nothing_to_choose_entropy_says_nothing(config: Config) -> None:
    found = verdict("policy's entropy, share of the most", run(train__actor_entropy_share=[1.0] * 5), config)
    assert found.level == "unclear"
    assert "nothing to choose" in found.sentence
