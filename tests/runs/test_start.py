"""The settings that a run starts with: recipes, the goal of the environment, parents; and how far a budget reaches."""

from pathlib import Path

import pytest

from dreamerjax.config import Config, ConfigError, flatten
from dreamerjax.envs import EnvInfo, Goal
from dreamerjax.runs import presets
from dreamerjax.runs.presets import read_env, takes_recipe
from dreamerjax.runs.run_folder import RunFolderError
from dreamerjax.runs.settings import Layer, combine
from dreamerjax.runs.start import Beginning, Parent, Start, resumed
from dreamerjax.training.budget import few_updates_told, first_train_step, planned_updates
from dreamerjax.types import ActionSpec, ObsSpec, Spaces

ACTIONS = (ActionSpec("discrete", 2),)
STATE, CAMERA = ObsSpec("state", (4,)), ObsSpec("camera", (64, 64, 3))
PUBLISHED = Config()


def look(*obs: ObsSpec, goal: Goal | None = None) -> EnvInfo:
    return EnvInfo(Spaces(obs or (STATE,), ACTIONS), goal or Goal())


def begin(*asked: Layer, platform: str = "cpu", seen: EnvInfo | None = None, **options) -> Start:
    return Beginning(asked, **options).settings(seen or look(), platform)


@pytest.fixture
def envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of environments, with the laptop's settings and what the test adds."""
    for file in ("gym.yaml", "gym.pixels.yaml", "cartpole.yaml", "dmc.yaml"):
        (tmp_path / file).write_text((presets.PRESETS / file).read_text())
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    return tmp_path


# Recipes


@pytest.mark.parametrize("name", ["mine:make_env", "my.package.envs:Arm", "gym:Acrobot-v1", "gym:mine:Arm-v0"])
def test_an_environment_without_settings_starts_from_what_suits_the_machine_and_what_it_sees(name: str) -> None:
    laptop = begin({"env.name": name})
    assert (laptop.config.agent.model.size, laptop.config.train.ratio) == ("300k", 64)
    assert laptop.config.agent.model.vision == "convolutions"
    assert laptop.told[0].startswith("Settings: laptop, for environments without images (")
    assert "--recipe defaults" in laptop.told[0]
    for obs in ((CAMERA,), (STATE, CAMERA)):
        pixels = begin({"env.name": name}, seen=look(*obs)).config
        assert (pixels.agent.model.vision, pixels.agent.world_model.reconstruction_scale) == ("patches", 1)
        assert pixels.agent.model.size == "300k"
    gpu = begin({"env.name": name}, platform="cuda")
    assert (gpu.config.agent, gpu.config.train) == (combine([]).agent, PUBLISHED.train)
    assert gpu.told == (
        "Settings: defaults (dreamerjax/config/hyperparameters.py), because cuda is used; --recipe laptop "
        "selects a small model that learns quickly.",
    )


def test_what_is_given_wins_over_the_machine_and_over_the_recipe() -> None:
    name = {"env.name": "mine:make_env"}
    assert begin(name, platform="cuda", recipe="laptop").config == begin(name).config
    assert begin(name, recipe="defaults").config == begin(name, platform="cuda").config
    assert begin(name, recipe="defaults").told == (
        "Settings: defaults (dreamerjax/config/hyperparameters.py), chosen by --recipe.",
    )
    config = begin(name, {"train.ratio": 8.0, "agent.model.size": "12m"}).config
    assert (config.train.ratio, config.agent.model.deter, config.train.batch_size) == (8, 2048, 8)


@pytest.mark.parametrize("name", ["cartpole", "dmc:walker-walk", "atari:pong", "gymnax:CartPole-v1"])
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_a_suite_or_a_preset_with_settings_is_as_it_was(name: str, platform: str) -> None:
    beginning = Beginning([{"env.name": name}])
    assert not beginning.needs_platform
    start = beginning.settings(look(STATE, CAMERA), platform)
    assert start == Start(combine(read_env(name)), ())
    with pytest.raises(ConfigError, match="--recipe is laptop, expected none here"):
        Beginning([{"env.name": name}], recipe="laptop")


def test_a_file_of_ones_own(envs: Path) -> None:
    (envs / "named.yaml").write_text("env: {id: 'mine:Arm', solve_return: 40}\ntrain: {env_steps: 5000}")
    (envs / "tuned.yaml").write_text("env: {id: 'mine:Arm'}\nagent: {actor: {learning_rate: 1e-3}}")
    (envs / "module.yaml").write_text("train: {ratio: 7}")
    assert [takes_recipe(name) for name in ("named", "tuned", "module:Arm", "mine:Arm")] == [True, False, False, True]
    named = begin({"env.name": "named"}).config
    assert (named.agent.model.size, named.env.solve_return, named.train.env_steps) == ("300k", 40, 5000)
    tuned = begin({"env.name": "tuned"})
    assert tuned == Start(combine(read_env("tuned")), ())
    assert tuned.config.agent.model.size == PUBLISHED.agent.model.size


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="No environment: give --env NAME"):
        Beginning([{"seed": 1}])
    with pytest.raises(ConfigError, match=r"env\.action_repeat is 0, expected 1 or more"):
        Beginning([{"env.name": "mine:make_env", "env.action_repeat": 0}])


def test_a_run_that_goes_on_keeps_what_it_has() -> None:
    stored = begin({"env.name": "mine:make_env"}, recipe="defaults").config
    assert resumed(stored, [{"env.name": "mine:make_env"}], "run") == stored
    assert resumed(stored, [{"train.ratio": 3.0}], "run").train.ratio == 3


# The goal


def test_settings_that_were_found_for_an_environment_are_pointed_out():
    line = "There are settings for this task: --env cartpole takes them."
    assert begin({"env.name": "gym:CartPole-v1"}).told[-1] == line
    assert begin({"env.name": "cartpole"}).told == ()
    assert not any("for this task" in line for line in begin({"env.name": "gym:Acrobot-v1"}).told)


def test_the_environments_own_goal_counts_where_nothing_else_says_one() -> None:
    goal = Goal(475.0, "the reward_threshold of CartPole-v1")
    name = {"env.name": "gym:CartPole-v1"}
    start = begin(name, seen=look(goal=goal))
    assert start.config.env.solve_return == 475
    assert "A mean return of 475 counts as solved: the reward_threshold of CartPole-v1." in start.told[1]
    for said in (100.0, None):
        start = begin(name, {"env.solve_return": said}, seen=look(goal=goal))
        assert start.config.env.solve_return == said
        assert not any("A mean return" in line for line in start.told)
    assert begin({"env.name": "cartpole"}, seen=look(goal=Goal(1.0, "x"))).config.env.solve_return == 475
    start = begin(name, seen=look(goal=Goal(None, "the reward_threshold 475 does not apply: why")))
    assert start.config.env.solve_return is None
    assert "No return counts as solved: the reward_threshold 475 does not apply: why." in start.told[1]


# Parents


def parent(*asked: Layer) -> Parent:
    own = {"seed": 7, "train.env_steps": 9000, "log.every": 1, "agent.precision": "bfloat16"}
    return Parent("runs/a", begin({"env.name": "cartpole"}, own, *asked).config)


def test_a_fork_takes_over_how_its_parent_learns_and_not_what_is_its_own() -> None:
    changed = {"agent.actor.learning_rate": 1e-4, "train.ratio": 5.0, "eval.every": 77, "replay.context": True}
    source = parent(changed)
    config = begin(parent=source).config
    flat = flatten(config)
    assert {key: flat[key] for key in changed} == changed
    assert config.env == source.config.env
    assert (config.seed, config.train.env_steps, config.log.every, config.agent.precision) == (0, 40_000, 200, "auto")
    asked = begin({"env.name": "cartpole", "train.ratio": 6.0, "seed": 3}, parent=source).config
    assert (asked.train.ratio, asked.seed, asked.agent.actor.learning_rate) == (6, 3, 1e-4)


def test_a_fork_and_its_environment() -> None:
    source = parent({"agent.actor.learning_rate": 1e-4, "env.solve_return": 300.0})
    renamed = begin({"env.name": "gym:CartPole-v1"}, parent=source, seen=look(goal=Goal(475.0, "x"))).config
    assert (renamed.env.name, renamed.env.solve_return) == ("gym:CartPole-v1", 475), "of the name that is asked for"
    assert renamed.agent.actor.learning_rate == 1e-4
    with pytest.raises(RunFolderError, match=r"env\.id: gym:CartPole-v1 there, gym:Acrobot-v1 here"):
        begin({"env.name": "gym:Acrobot-v1"}, parent=source)
    with pytest.raises(RunFolderError, match=r"agent\.model\.deter: 256 there, 512 here"):
        begin({"agent.model.size": "1m"}, parent=source)
    with pytest.raises(ConfigError, match="the settings are those of the run runs/a"):
        Beginning([], recipe="laptop", parent=source)


def test_a_parent_whose_file_is_not_here(envs: Path) -> None:
    (envs / "arm.yaml").write_text("env: {id: 'mine:Arm'}\nagent: {actor: {learning_rate: 1e-3}}")
    source = Parent("given", begin({"env.name": "arm"}).config)
    (envs / "arm.yaml").unlink()
    config = begin(parent=source).config
    assert (config.env.id, config.agent.actor.learning_rate) == ("mine:Arm", 1e-3)
    with pytest.raises(ConfigError, match="Unknown environment `amr`"):
        begin({"env.name": "amr"}, parent=source)


# The budget


def budget(**train: object) -> Config:
    layer = {f"train.{key}": value for key, value in train.items()}
    few = {"train.batch_size": 2, "train.sequence_length": 4, "train.updates_per_dispatch": 2, "train.prefill": 16}
    return combine([{"env.name": "gym:X", "replay.context": False}, {**few, "train.ratio": 8.0}, layer])


@pytest.mark.parametrize(
    ("config", "updates"),
    [
        (budget(env_steps=40), 24),  # as in tests/cli
        (budget(env_steps=16), 0),
        (budget(env_steps=17), 0),  # 8 rows are earned, and a dispatch takes 16
        (budget(env_steps=18), 2),
        (budget(env_steps=16, world_model_warmup=3), 4),
        (budget(env_steps=40, ratio=4.0), 12),
        (budget(env_steps=116), 100),
    ],
)
def test_a_budget_that_allows_few_updates_is_told(config: Config, updates: int) -> None:
    assert planned_updates(config) == updates
    told = few_updates_told(config)
    if updates >= 100:
        assert told == ""
        return
    assert f"The budget of {config.train.env_steps} environment steps allows" in told
    assert ("no update: nothing will be learned" if updates == 0 else f"{updates} updates, too few") in told
    for flag in ("--env-steps", "--train-ratio", "--train.prefill", "--train.batch-size"):
        assert flag in told


def test_the_first_update_waits_for_a_window_in_each_copy() -> None:
    many = combine([{"env.name": "gym:X", "env.num_envs": 3, "train.prefill": 100, "train.sequence_length": 64}])
    assert first_train_step(many) == 3 * 65
    assert first_train_step(combine([flatten(many), {"train.prefill": 400}])) == 402
