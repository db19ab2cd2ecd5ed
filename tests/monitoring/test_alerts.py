"""Every alert is raised by its failure, once, and by nothing else."""

import json
import math
import shlex
from pathlib import Path

import pytest

from dreamerjax.config import Config, flatten
from dreamerjax.monitoring.alerts import Alert, Watch, alerts_of
from dreamerjax.monitoring.remedy import words_and_flags
from dreamerjax.monitoring.rules import RULES
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.settings import combine, read_flags

TRAIN = {
    "train/kl": 1.5,
    "train/free_nats_share": 0.1,
    "train/posterior_entropy": 32.0,
    "train/grad_norm/prior": 4.0,
    "train/grad_norm/encoder": 15.0,
    "train/actor_entropy_share": 0.3,
    "speed/data_wait_share": 0.002,
    "replay/added_share": 1.0,
}
DIAGNOSIS = {
    "diagnosis/value_bias": -20.0,
    "diagnosis/value_mean": 50.0,
    "diagnosis/value_return": 70.0,
    "diagnosis/reward_correlation": 0.99,
    "diagnosis/reward_correlation_previous": 0.2,
    "diagnosis/reward_correlation_next": 0.1,
    "diagnosis/cont_predicted": 0.97,
    "diagnosis/cont_real": 0.98,
    "diagnosis/dream_survival_h3": 0.93,
    "diagnosis/world_model_loss_newest": 5.0,
    "diagnosis/world_model_loss_replay": 3.0,
}
SICK = {
    "not a number": {"train/critic_loss": math.nan},
    "prior receives no gradient": {"train/grad_norm/prior": 0.0},
    "latents collapsed": {"train/kl": 0.5, "train/posterior_entropy": 42.0},
    "entropy collapsed": {"train/actor_entropy_share": 0.03},
    "collector starved": {"speed/data_wait_share": 0.6},
    "replay frozen": {"replay/added_share": 0.0},
    "continue head is wrong": {"diagnosis/cont_predicted": 0.5, "diagnosis/dream_survival_h3": 0.9},
    "dreams end too soon": {"diagnosis/dream_survival_h3": 0.2},
    "rewards are shifted": {"diagnosis/reward_correlation_previous": 0.9, "diagnosis/reward_correlation": 0.4},
    "world model lags behind": {"diagnosis/world_model_loss_newest": 20.0},
}


@pytest.fixture(scope="module")
def config() -> Config:
    return combine(read_env("cartpole"))


def run(*, sick: dict, start: int = 0, end: int = 6000) -> list[dict]:
    """A line of each kind every 500 steps; the given numbers change in the middle."""
    lines = []
    for step in range(500, end + 500, 500):
        more = sick if start < step else {}
        position = {"step": step, "update": step // 10}
        lines.append({**position, "eval/return_mean": 100.0 + step / 100})
        for kind in (TRAIN, DIAGNOSIS):
            changed = {name: x for name, x in more.items() if name in kind or (kind is TRAIN and "critic" in name)}
            lines.append({**position, **kind, **changed})
    return lines


def test_every_rule_has_its_case():
    assert {*SICK, "delusional dreaming"} == set(RULES)


@pytest.mark.parametrize("name", SICK)
def test_a_failure_is_named_once_and_nothing_else_is(config: Config, name: str) -> None:
    assert alerts_of(run(sick={}), config) == []
    alerts = alerts_of(run(sick=SICK[name], start=3000), config)
    assert [alert.name for alert in alerts] == [name]
    lines = {"train": config.alerts.lines, "diagnosis": config.alerts.diagnoses}[RULES[name].kind]
    assert alerts[0].step == 3000 + 500 * (1 if name == "not a number" else lines)
    assert alerts[0].update == alerts[0].step // 10
    assert alerts[0].remedy


def test_an_alert_is_raised_again_only_after_it_has_cleared(config: Config) -> None:
    lines = run(sick=SICK["replay frozen"])
    twice = [*lines, *run(sick={}), *lines]
    assert [alert.name for alert in alerts_of(twice, config)] == ["replay frozen"] * 2


def test_one_line_raises_no_alert(config: Config) -> None:
    lines = run(sick=SICK["entropy collapsed"], end=500 * (config.alerts.lines - 1))
    assert alerts_of([*lines, *run(sick={})], config) == []


def test_low_entropy_is_no_failure_where_the_goal_is_reached(config: Config) -> None:
    lines = run(sick=SICK["entropy collapsed"])
    solved = [line | {"eval/return_mean": 500.0} if "eval/return_mean" in line else line for line in lines]
    assert alerts_of(solved, config) == []


def dreams(*, returns, values, followed) -> list[dict]:
    lines = []
    for number, (ret, value, real) in enumerate(zip(returns, values, followed, strict=True), 1):
        position = {"step": 500 * number, "update": 50 * number}
        lines.append({**position, "eval/return_mean": ret})
        lines.append({**position, **DIAGNOSIS, "diagnosis/value_mean": value, "diagnosis/value_return": real})
    return lines


def test_delusional_dreaming(config: Config) -> None:
    returns, values = [200, 300, 300, 250, 120, 110], [30, 50, 50, 60, 100, 110]
    alerts = alerts_of(dreams(returns=returns, values=values, followed=[40] * 6), config)
    assert [alert.name for alert in alerts] == ["delusional dreaming"]
    assert alerts[0].step == 2500
    assert alerts[0].message == ("dreamed value +233% while return -60% over 2,000 steps; value 100, but 40 followed")
    # A falling return, a rising value or a value that is too high is not enough alone.
    calm = {"returns": [200] * 6, "values": [30] * 6, "followed": [200] * 6}
    for part in ({"returns": returns}, {"values": values}, {"followed": [10] * 6}):
        assert alerts_of(dreams(**{**calm, **part}), config) == []
    assert alerts_of(dreams(returns=returns, values=values, followed=[110] * 6), config) == []


def test_rewards_below_zero_have_their_signs_right(config: Config) -> None:
    """The return falls from -100 to -200 while the dreamed value rises."""
    returns, values = [-100, -100, -100, -150, -200, -200], [-90, -80, -60, -40, -20, -20]
    alerts = alerts_of(dreams(returns=returns, values=values, followed=[-90] * 6), config)
    assert [alert.name for alert in alerts] == ["delusional dreaming"]


def test_lines_of_older_versions_raise_nothing(config: Config) -> None:
    assert alerts_of([{"step": 1, "update": 1, "train/kl": 0.0}] * 9, config) == []


def test_an_alert_is_json_and_a_sentence(config: Config) -> None:
    alert = Watch(config).see({"step": 7, "update": 2, "train/kl": math.nan})[0]
    assert str(alert) == "not a number: train/kl is not finite"
    assert Alert(**json.loads(json.dumps(alert._asdict()))) == alert


def test_active_alerts_have_not_cleared(config: Config) -> None:
    watch = Watch(config)
    for line in run(sick=SICK["replay frozen"]):
        watch.see(line)
    assert list(watch.active) == ["replay frozen"]
    for line in run(sick={}):
        watch.see(line)
    assert watch.active == {}


# Remedies


def settings(**layer) -> Config:
    return combine([*read_env("cartpole"), {key.replace("__", "."): value for key, value in layer.items()}])


CONFIGS = {
    "cartpole": settings(),
    "published": combine([{"env.name": "gym:CartPole-v1"}]),
    "straight through": settings(agent__world_model__free_nats_gradient="straight_through"),
    "heavy KL": settings(agent__world_model__dynamics_scale=10.0, agent__world_model__representation_scale=1.0),
    "entropy fades": settings(agent__actor__entropy_schedule="cosine"),
    "nothing weighs": settings(
        agent__actor__entropy_scale=0.0,
        agent__actor__learning_rate=0.0,
        agent__world_model__dynamics_scale=0.0,
        agent__world_model__cont_scale=0.0,
        agent__world_model__reconstruction_scale=0.0,
    ),
    "on the disk": settings(replay__storage="disk"),
    "on the device": settings(replay__storage="device"),
    "paced": settings(train__pacing="surprise", train__pacing_factor=3),
    "model alone": settings(train__mode="world_model"),
    "actor alone": settings(train__mode="actor_critic"),
}
NO_SETTING_MENDS = {"replay frozen", "rewards are shifted"}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("given", CONFIGS)
def test_a_remedy_is_flags_that_change_the_settings(name: str, given: str) -> None:
    """The flags parse, give valid settings, and docs/research.md names each of them."""
    config = CONFIGS[given]
    lines = {"train": [TRAIN], "diagnosis": [DIAGNOSIS | SICK.get(name, {})], "eval": []}
    remedy = RULES[name].remedy(lines, config)
    assert "\n" not in str(remedy)
    words, flags = words_and_flags(str(remedy))
    assert (words, " ".join(flags)) == (remedy.words, remedy.flags)
    assert len(flags) == len(remedy.changes)
    assert bool(remedy.changes) == (name not in NO_SETTING_MENDS)
    layer = read_flags(shlex.split(remedy.flags))
    assert layer == pytest.approx(remedy.changes)
    before, after = flatten(config), flatten(combine([flatten(config), layer]))
    assert {key for key in before if before[key] != after[key]} == set(layer)
    page = (Path(__file__).parents[2] / "docs" / "research.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| *{name}* |")]
    for key in layer:
        assert f"`--{key.replace('_', '-')}" in row


@pytest.mark.parametrize(("scale", "flags"), [(3e-3, "0.009"), (1e-2, "0.03"), (0.0, "0.0003")])
def test_a_remedy_follows_from_the_present_settings(scale: float, flags: str) -> None:
    config = settings(agent__actor__entropy_scale=scale)
    (alert,) = alerts_of(run(sick=SICK["entropy collapsed"]), config)
    assert alert.remedy == f"increase the entropy bonus: --agent.actor.entropy-scale {flags}"


def test_the_remedy_for_dreams_that_end_too_soon_depends_on_the_continue_head(config: Config) -> None:
    def remedy(predicted: float) -> dict:
        lines = {"diagnosis": [DIAGNOSIS | {"diagnosis/cont_predicted": predicted}]}
        return dict(RULES["dreams end too soon"].remedy(lines, config).changes)

    assert remedy(0.98) == {"agent.world_model.free_nats_gradient": "straight_through"}
    assert remedy(0.6) == {"agent.world_model.cont_scale": 3.0}
