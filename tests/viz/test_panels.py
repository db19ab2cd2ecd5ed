"""The verdict of each diagnostic panel on a healthy run, on failing runs, and on a run that is too short."""

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
    """Lines of a healthy run, with other values for some metrics (`train__kl` is train/kl)."""
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
def test_a_healthy_run_is_ok(config: Config, title: str) -> None:
    found = verdict(title, run(), config)
    assert found.level == "ok", found.sentence


@pytest.mark.parametrize(
    ("title", "sick", "expected"),
    [
        ("greedy return", {"eval__return_mean": [20.0] * 5}, "is no better than the 20.0 of the first evaluation"),
        (
            "policy entropy, share of maximum",
            {"train__actor_entropy_share": [1.0, *[0.99] * 4]},
            "still close to random",
        ),
        (
            "policy entropy, share of maximum",
            {"train__actor_entropy_share": [0.05] * 5, "eval__return_mean": [20.0] * 5},
            "Alert since step 1,500, entropy collapsed",
        ),
        (
            "reconstruction loss",
            {"train__reconstruction_loss": [2.4] * 5},
            "2.4 at the start, 2.4 at the end: it does not fall",
        ),
        (
            "reconstruction loss",
            {"train__reconstruction_loss": [2.4, 0.1, 0.1, 0.5, 1.0]},
            "with a minimum of 0.1: it rises",
        ),
        ("reward loss, nats", {"train__reward_loss": [5.54, 5.5, 5.5, 5.5, 5.5]}, "it does not fall"),
        (
            "reward loss, nats",
            {"train__reward_loss": [5.54, 2.0, 2.0, 2.0, math.nan]},
            "The last value is not finite: reward",
        ),
        ("value and observed return", {"diagnosis__value_mean": [200.0] * 5}, "imagined returns exceed real ones"),
        ("value and observed return", {"diagnosis__value_mean": [5.0] * 5}, "lags behind"),
        ("world-model loss", {"diagnosis__world_model_loss_newest": [9.0] * 5}, "the model has not learned yet"),
        ("KL by imagined steps, nats", {"diagnosis__dream_kl_h1": [30.0] * 5}, "the prior predicts poorly"),
        (
            "agreement of prior and posterior, share of groups",
            {"diagnosis__prior_agreement": [0.45] * 5},
            "45% of the groups",
        ),
        ("continue probability", {"diagnosis__dream_survival_h15": [0.1] * 5}, "after 15 steps 10% of dreams continue"),
        ("gradient norms", {"train__grad_norm/decoder": [0.0] * 5}, "The gradient is zero in decoder"),
    ],
)
def test_a_failing_run_gets_a_warning(config: Config, title: str, sick: dict[str, list[float]], expected: str) -> None:
    found = verdict(title, run(**sick), config)
    assert found.level == "warning", found.sentence
    assert expected in found.sentence


@pytest.mark.parametrize("title", BY_TITLE)
def test_a_run_that_is_too_short_is_unclear(config: Config, title: str) -> None:
    lines = run(steps=2, updates=20, eval__return_mean=[20.0, 21.0])
    expected = "ok" if title == "gradient norms" else "unclear"
    assert verdict(title, lines, config).level == expected
    assert verdict(title, [{"step": 1, "update": 0, "wall_seconds": 0.1}], config).level == "unclear"


@pytest.mark.parametrize("name", [name for panel in PANELS for name in panel.alerts if name in SICK])
def test_a_panel_shows_only_active_alerts(config: Config, name: str) -> None:
    (panel,) = [panel for panel in PANELS if name in panel.alerts]
    columns = {metric: [value] * 5 for metric, value in SICK[name].items()}
    columns |= {"eval/return_mean": [20.0] * 5} if name == "entropy collapsed" else {}
    sick = run(**columns)
    found = verdict(panel.title, sick, config)
    assert found.level == "warning"
    assert f", {name}: " in found.sentence
    well = [line | {"step": line["step"] + 2500, "update": line["update"] + 2000} for line in run()]
    assert "Alert" not in verdict(panel.title, [*sick, *well], config).sentence


def test_every_alert_about_learning_belongs_to_a_panel() -> None:
    named = [name for panel in PANELS for name in panel.alerts]
    assert len(named) == len(set(named))
    assert set(RULES) - set(named) == {"collector starved", "replay frozen"}, "these are about the machine"


def test_constant_losses_are_ok_for_a_model_trained_before(config: Config) -> None:
    low = run(train__reconstruction_loss=[0.4] * 5, train__reward_loss=[1.2] * 5)
    for title in ("reconstruction loss", "reward loss, nats"):
        found = verdict(title, low, config)
        assert found.level == "ok"
        assert "was trained before this run" in found.sentence


def test_constant_maximum_entropy_is_unclear(config: Config) -> None:
    found = verdict("policy entropy, share of maximum", run(train__actor_entropy_share=[1.0] * 5), config)
    assert found.level == "unclear"
    assert "only one action" in found.sentence
