"""Reading a hypothesis: valid files and errors."""

import sys
from pathlib import Path

import pytest
import yaml

from dreamerjax.config import ConfigError
from dreamerjax.study.hypothesis import read_hypothesis

GOOD = {
    "hypothesis": "More entropy\nhelps.",
    "environment": "cartpole",
    "settings": {"train.env_steps": 6000},
    "change": {"agent": {"actor": {"entropy_scale": 0.1}}},
    "metric": "mean_return",
    "expect": {"direction": "higher", "by": "10%"},
}
HYPOTHESES = Path(__file__).parents[2] / "experiments" / "hypotheses"


def read(tmp_path: Path, *, allow_many_changes: bool = False, **differing):
    content = {key: value for key, value in {**GOOD, **differing}.items() if value is not None}
    file = tmp_path / "more_entropy.yaml"
    file.write_text(yaml.safe_dump(content))
    return read_hypothesis(file, allow_many_changes=allow_many_changes)


def test_a_valid_hypothesis(tmp_path):
    h = read(tmp_path)
    assert (h.name, h.sentence, h.seeds) == ("more_entropy", "More entropy helps.", (0, 1, 2))
    assert h.change.agent.actor.entropy_scale == 0.1 != h.baseline.agent.actor.entropy_scale
    assert h.baseline.train.env_steps == h.change.train.env_steps == 6000
    assert not h.baseline.train.stop_when_solved  # a fixed budget
    assert h.expect.size([90, 110]) == pytest.approx(10)
    baseline, change = h.jobs()
    assert [job.config.seed for job in baseline + change] == [0, 1, 2, 0, 1, 2]
    assert len({job.folder for job in baseline + change}) == 6


@pytest.mark.parametrize(("obs", "vision"), [("auto", "convolutions"), ("pixels", "patches")])
@pytest.mark.parametrize("environment", ["gym:CartPole-v1", "own_pole:make_env"])
def test_an_environment_without_settings_gets_the_laptop_recipe(tmp_path, monkeypatch, environment, obs, vision):
    pole = "import gymnasium\n\ndef make_env():\n    return gymnasium.make('CartPole-v1', render_mode='rgb_array')\n"
    (tmp_path / "own_pole.py").write_text(pole)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_pole", raising=False)
    model = read(tmp_path, environment=environment, settings={"env.obs": obs}).baseline.agent.model
    assert (model.size, model.vision) == ("300k", vision)


def test_hypotheses_with_the_same_baseline_share_its_runs(tmp_path):
    one = read(tmp_path).jobs()[0]
    other = read(tmp_path, change={"agent.critic.slow_scale": 0.5}).jobs()[0]
    assert [job.folder for job in one] == [job.folder for job in other]


@pytest.mark.parametrize(
    ("differing", "words"),
    [
        (
            {"change": {"agent.actor.entropy_scale": 0.1, "agent.critic.slow_scale": 0.0}},
            "critic.slow_scale), expected one",
        ),
        ({"metric": ["mean_return", "final_return"]}, "expected one name"),
        ({"metric": "mean_retrun"}, "Did you mean `mean_return`"),
        ({"change": {"agent.actor.entropy": 0.1}}, "unknown key `agent.actor.entropy`"),
        ({"change": {"agent.actor.entropy_scale": "much"}}, "expected a number"),
        ({"change": {"agent.actor.entropy_scale": 3e-3}}, "the same settings as the baseline"),
        ({"change": {}}, "change is empty"),
        ({"change": {"agent.model.hidden": 128}}, "agent.model.hidden: 64 there, 128 here"),
        ({"change": {"code": "experiments/variants.py:no_such_thing"}}, "no function `no_such_thing`"),
        ({"expect": {"direction": "better"}}, "expected {direction"),
        ({"expect": {"direction": "same"}}, "above 0 for `same`"),
        ({"seeds": 1}, "expected two or more"),
        ({"environment": "cartpool"}, "Did you mean `cartpole`"),
        ({"hypotesis": "?"}, "Did you mean `hypothesis`"),
        ({"expect": None}, "`expect` is missing"),
    ],
)
def test_an_invalid_hypothesis_gives_an_error(tmp_path, differing, words):
    with pytest.raises(ConfigError) as error:
        read(tmp_path, **differing)
    assert words in str(error.value)
    assert "more_entropy.yaml" in str(error.value) or "metric" in differing or "code" in differing.get("change", ())


def test_several_changes_need_a_flag_or_a_reason(tmp_path):
    two = {"agent.actor.entropy_scale": 0.1, "agent.critic.slow_scale": 0.0}
    assert read(tmp_path, change=two, allow_many_changes=True).changed == two
    assert read(tmp_path, change=two, one_change_because="they are one").changed == two


def test_another_family_needs_new_family(tmp_path):
    assert read(tmp_path, change={"agent.model.hidden": 128}, new_family=True).change.agent.model.hidden == 128


@pytest.mark.parametrize("file", sorted(HYPOTHESES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_hypotheses_of_the_project_are_valid(file):
    assert read_hypothesis(file).sentence
