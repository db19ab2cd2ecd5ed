"""Settings: the order of the layers, the types of the values, and a helpful word for every mistake."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import yaml

from dreamerjax.config import SIZES, Config, ConfigError, flatten, resolve
from dreamerjax.runs import presets, settings
from dreamerjax.runs.presets import CONFIGS, read_config_file, read_env
from dreamerjax.runs.settings import KEYS, SHORTCUTS, TYPES, combine, nested, read_flags, read_yaml

SHIPPED = sorted(presets.PRESETS.glob("*.yaml"))


@pytest.fixture
def envs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of environments that belongs to the test."""
    folder = tmp_path / "envs"
    folder.mkdir()
    monkeypatch.setattr(presets, "PRESETS", folder)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Layers


def test_later_layers_win(envs: Path, tmp_path: Path) -> None:
    write(envs / "toy.yaml", "seed: 1\ntrain: {prefill: 1, batch_size: 1, ratio: 1, env_steps: 1000}")
    write(envs / "ball.yaml", "env: {id: 'toy:Ball-v0'}\ntrain: {prefill: 2, batch_size: 2, ratio: 2}")
    file = write(tmp_path / "mine.yaml", "train: {prefill: 3, batch_size: 3}")
    another = write(tmp_path / "another.yaml", "train: {batch_size: 4, sequence_length: 4}")
    layers = [*read_env("ball"), read_yaml(file), read_yaml(another), read_flags(["--train.sequence-length", "5"])]
    config = combine(layers)
    assert config.log == Config().log, "defaults"
    assert (config.seed, config.train.env_steps) == (1, 1000), "the suite's file"
    assert config.train.ratio == 2, "the environment's file"
    assert config.train.prefill == 3, "--config"
    assert config.train.batch_size == 4, "a second --config"
    assert config.train.sequence_length == 5, "flags"
    assert (config.env.name, config.env.id) == ("ball", "toy:Ball-v0")


def test_an_id_gets_the_settings_of_its_suite_only(envs: Path) -> None:
    write(envs / "toy.yaml", "seed: 7")
    write(envs / "ball.yaml", "env: {id: 'toy:Ball-v0'}\nseed: 8")
    config = combine(read_env("toy:Ball-v0"))
    assert (config.env.name, config.env.id, config.seed) == ("toy:Ball-v0", "toy:Ball-v0", 7)
    assert combine(read_env("other:Ball-v0")).seed == 0, "a suite without a file"


def test_where_images_are_seen_files_for_that_come_after_those_of_their_name(envs: Path) -> None:
    write(envs / "toy.yaml", "seed: 1\ntrain: {prefill: 1, batch_size: 1, ratio: 1}")
    write(envs / "toy.pixels.yaml", "seed: 2\ntrain: {prefill: 2, batch_size: 2}")
    write(envs / "ball.yaml", "env: {id: 'toy:Ball-v0'}\nseed: 3\ntrain: {prefill: 3}")
    write(envs / "ball.pixels.yaml", "seed: 4")
    write(envs / "picture.yaml", "env: {id: 'toy:Picture-v0', obs: pixels}")

    def numbers(name: str, obs: str | None) -> tuple[int, int, int, float]:
        config = combine(read_env(name, obs))
        return config.seed, config.train.prefill, config.train.batch_size, config.train.ratio

    for obs in (None, "auto", "state"):
        assert numbers("ball", obs) == (3, 3, 1, 1)
    for obs in ("pixels", "both"):
        assert numbers("ball", obs) == (4, 3, 2, 1)
        assert numbers("toy:Ball-v0", obs) == (2, 2, 2, 1)
    assert numbers("picture", None) == (2, 2, 2, 1), "its own file asks for images"
    assert numbers("picture", "state") == (1, 1, 1, 1)


@pytest.mark.parametrize("name", [file.stem for file in sorted(CONFIGS.glob("*.yaml"))])
def test_a_config_that_is_found_by_its_name_is_complete_and_in_range(name: str) -> None:
    resolve(combine([*read_env("dmc:walker-walk"), read_config_file(Path(name))]))


def test_both_versions_of_deepmind_control_are_shipped() -> None:
    def numbers(*more: dict) -> tuple[int, str, float, int]:
        config = combine([*read_env("dmc:walker-walk"), *more])
        return config.env.action_repeat, config.agent.model.size, config.train.ratio, config.train.env_steps

    assert numbers() == (2, "12m", 512, 250_000), "an earlier version of the paper"
    assert numbers(read_config_file(Path("dmc_nature"))) == (1, "1m", 1024, 1_000_000), "the journal version"


def test_cartpole_as_it_looks_is_shipped() -> None:
    config = combine([*read_env("cartpole", "pixels"), {"env.obs": "pixels"}])
    assert (config.agent.model.vision, config.env.image.colour) == ("patches", "darkest")
    assert config.env.solve_return == 475


def test_a_later_size_takes_back_the_numbers_of_earlier_layers() -> None:
    earlier = {"agent.model.size": "12m", "agent.model.deter": 24, "agent.model.bins": 31}
    model = combine([earlier, {"agent.model.size": "1m"}]).agent.model
    assert {name: getattr(model, name) for name in SIZES["1m"]._fields} == SIZES["1m"]._asdict()
    assert model.bins == 31, "no number of the size"


def test_numbers_beside_or_after_a_size_stay() -> None:
    beside = combine([{"agent.model.size": "1m", "agent.model.deter": 24}]).agent.model
    after = combine([{"agent.model.size": "1m"}, {"agent.model.deter": 24}]).agent.model
    assert beside == after
    assert (beside.deter, beside.hidden) == (24, SIZES["1m"].hidden)


def test_old_names_of_settings_are_understood(tmp_path: Path) -> None:
    file = write(tmp_path / "old.yaml", "env: {copies: 3}\neval: {copies: 4}")
    assert read_yaml(file) == {"env.num_envs": 3, "eval.num_envs": 4}
    assert read_flags(["--env.copies", "3", "--eval.copies=4"]) == read_yaml(file)


def test_a_complete_config_and_a_new_size() -> None:
    """What happens when a stored run is asked for another size: its stored numbers must not win."""
    stored = flatten(resolve(Config()))
    assert combine([stored, {"agent.model.size": "300k"}]).agent.model.deter == SIZES["300k"].deter


def test_combining_checks_the_result() -> None:
    with pytest.raises(ConfigError, match=r"agent\.model\.deter is 10, .*multiple of agent\.model\.blocks"):
        combine([{"agent.model.deter": 10}, {"agent.model.blocks": 4}])


# YAML


def test_every_setting_survives_yaml(tmp_path: Path) -> None:
    config = combine([{"env.name": "gym:A", "env.solve_return": -1.5, "agent.optimizer.epsilon": 1e-20, "seed": 3}])
    tree = nested(config)
    assert tree["agent"]["optimizer"]["epsilon"] == 1e-20
    assert list(flatten(tree)) == list(KEYS)
    file = write(tmp_path / "config.yaml", yaml.safe_dump(tree, sort_keys=False))
    assert combine([read_yaml(file)]) == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_files_parse(path: Path) -> None:
    layer = read_yaml(path)
    if "env.id" in layer:
        config = combine(read_env(path.stem))
        assert config.env.name == path.stem
        assert config.env.id == layer["env.id"]
    else:
        combine(read_env(f"{path.stem}:Anything-v0"))


def test_cartpole_is_shipped() -> None:
    config = combine(read_env("cartpole"))
    assert (config.env.id, config.env.solve_return) == ("gym:CartPole-v1", 475)


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("4E5", 4e5), ("3", 3.0), ("-0.5", -0.5), ("'0.25'", 0.25), (".5", 0.5)]
)
def test_numbers_as_people_write_them(tmp_path: Path, text: str, number: float) -> None:
    """YAML itself takes 1e-4, without a point, for text."""
    layer = read_yaml(write(tmp_path / "a.yaml", f"agent: {{actor: {{learning_rate: {text}}}}}"))
    assert layer == {"agent.actor.learning_rate": number}
    assert isinstance(layer["agent.actor.learning_rate"], float)
    assert read_flags([f"--agent.actor.learning-rate={text.strip(chr(39))}"]) == layer


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "train: {}"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert read_yaml(write(tmp_path / "a.yaml", text)) == {}


@pytest.mark.parametrize("text", ["null", "none", "None", "~"])
def test_no_goal(tmp_path: Path, text: str) -> None:
    layer = read_yaml(write(tmp_path / "a.yaml", f"env: {{solve_return: {text}}}"))
    assert layer == {"env.solve_return": None}
    assert combine([{"env.solve_return": 475.0}, layer]).env.solve_return is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  ratio: 8\n  batch_size: [1\n", "line 4 is not YAML"),
        ("seed: 1\n\tratio: 2\n", "line 2 is not YAML"),
        ("seed: 1\n seed: 2\n", "line 2 is not YAML"),
        ("train: {ratio: 8", "line 1 is not YAML"),
        ("seed: \x00", "is not YAML"),
        ("- seed", "holds list, expected settings as lines of `key: value`"),
        ("seed", "holds str, expected settings"),
        ("trian: {ratio: 8}", "unknown key `trian.ratio`. Did you mean `train.ratio`?"),
        ("train: {ratoi: 8}", "unknown key `train.ratoi`. Did you mean `train.ratio`?"),
        ("batch_size: 8", "unknown key `batch_size`. Did you mean `train.batch_size`?"),
        ("train: 8", "unknown key `train`."),
        ("seed: {deep: 8}", "unknown key `seed.deep`."),
        ("8: 8", "unknown key `8`."),
        ("train: {batch_size: many}", "train.batch_size is 'many', expected a whole number"),
        ("train: {batch_size: 1.5}", "train.batch_size is 1.5, expected a whole number"),
        ("train: {batch_size: [8]}", "train.batch_size is [8], expected a whole number"),
        ("train: {batch_size: null}", "train.batch_size is None, expected a whole number"),
        ("train: {batch_size: true}", "train.batch_size is True, expected a whole number"),
        ("train: {ratio: true}", "train.ratio is True, expected a number"),
        ("train: {ratio: fast}", "train.ratio is 'fast', expected a number"),
        ("train: {mode: both}", "train.mode is 'both', expected one of joint, world_model, actor_critic"),
        ("train: {stop_when_solved: 3}", "train.stop_when_solved is 3, expected true or false"),
        ("env: {solve_return: often}", "env.solve_return is 'often', expected a number or none"),
        ("env: {name: 5}", "env.name is 5, expected text"),
        ("agent: {model: {size: 2m}}", "agent.model.size is '2m', expected one of 300k, 1m"),
    ],
)
def test_mistakes_in_yaml_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "mine.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    said = str(caught.value)
    assert said.startswith(str(file))
    assert message in said
    assert said.count("\n") < 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"env: {name: caf\xe9}")
    with pytest.raises(ConfigError, match=r"latin\.yaml is not YAML"):
        read_yaml(tmp_path / "latin.yaml")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", f"seed: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'made'}]")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(file)
    assert not (tmp_path / "made").exists()


# Environments


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bal", "Unknown environment `bal`. Did you mean `ball`?"),
        ("Ball", "Unknown environment `Ball`. Did you mean `ball`?"),
        ("xyz", "Unknown environment `xyz`. Known names: ball."),
        ("../envs/ball", "Unknown environment `../envs/ball`."),
        ("", "Unknown environment ``."),
    ],
)
def test_unknown_environments(envs: Path, name: str, message: str) -> None:
    write(envs / "ball.yaml", "env: {id: 'toy:Ball-v0'}")
    with pytest.raises(ConfigError) as caught:
        read_env(name)
    assert str(caught.value).startswith(message)
    assert "gym:ID" in str(caught.value)


def test_a_suites_file_is_no_environment(envs: Path) -> None:
    write(envs / "ball.yaml", "env: {id: 'toy:Ball-v0'}")
    write(envs / "toy.yaml", "seed: 1")
    with pytest.raises(ConfigError) as caught:
        read_env("xyz")
    assert "Known names: ball." in str(caught.value)


# Flags


@pytest.mark.parametrize(
    ("flags", "layer"),
    [
        ([], {}),
        (["--seed", "3"], {"seed": 3}),
        (["--seed=3"], {"seed": 3}),
        (["--seed", "1", "--seed", "2"], {"seed": 2}),
        (["--seed", "-1"], {"seed": -1}),
        (["--train.batch-size", "8"], {"train.batch_size": 8}),
        (["--train.batch_size", "8"], {"train.batch_size": 8}),
        (["--env", "gym:Acrobot-v1"], {"env.name": "gym:Acrobot-v1"}),
        (["--env.id=a=b"], {"env.id": "a=b"}),
        (["--size", "300k", "--env-steps=9"], {"agent.model.size": "300k", "train.env_steps": 9}),
        (["--train-ratio", "0.5"], {"train.ratio": 0.5}),
        (["--env.solve-return", "none"], {"env.solve_return": None}),
        (["--stop-when-solved"], {"train.stop_when_solved": True}),
        (["--no-stop-when-solved"], {"train.stop_when_solved": False}),
        (["--no-train.stop-when-solved"], {"train.stop_when_solved": False}),
        (["--train.no-stop-when-solved"], {"train.stop_when_solved": False}),
        (["--stop-when-solved=false"], {"train.stop_when_solved": False}),
        (["--no-log.tensorboard", "--seed", "3"], {"log.tensorboard": False, "seed": 3}),
    ],
)
def test_flags(flags: list[str], layer: dict[str, object]) -> None:
    assert read_flags(flags) == layer


def test_every_setting_is_a_flag() -> None:
    for key, default in flatten(combine([])).items():
        text = "none" if default is None else str(default)
        assert read_flags([f"--{key.replace('_', '-')}={text}"]) == {key: default}


def test_shortcuts_lead_to_settings_and_hide_none() -> None:
    assert set(SHORTCUTS.values()) <= set(KEYS)
    assert not set(SHORTCUTS) & set(KEYS)


def test_every_setting_has_a_type_that_can_be_explained() -> None:
    assert set(TYPES) == set(KEYS)
    for key, hint in TYPES.items():
        assert settings._expected(hint), key
        assert type(flatten(Config())[key]) in (*get_args(hint), hint, str), key


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sede", "1"], "Unknown flag `--sede`. Did you mean `--seed`"),
        (["--train.batchsize", "1"], "Unknown flag `--train.batchsize`. Did you mean `--train.batch-size`"),
        (["--batch-size", "1"], "Unknown flag `--batch-size`. Did you mean `--train.batch-size`"),
        (["--no-seed"], "Unknown flag `--no-seed`. Did you mean `--seed`"),
        (["seed"], "Unknown flag `seed`."),
        (["-s", "1"], "Unknown flag `-s`."),
        (["--seed", "1", "2"], "Unknown flag `2`."),
        (["--xyzzy"], "Unknown flag `--xyzzy`.\n"),
        (["--size"], "--size needs a value, expected one of 300k, 1m"),
        (["--env-steps", "--seed", "1"], "--env-steps needs a value, expected a whole number"),
        (["--seed", "one"], "--seed is 'one', expected a whole number"),
        (["--seed="], "--seed is '', expected a whole number"),
        (["--train-ratio", "fast"], "--train-ratio is 'fast', expected a number"),
        (["--stop-when-solved=perhaps"], "--stop-when-solved is 'perhaps', expected true or false"),
        (["--no-stop-when-solved=true"], "--no-stop-when-solved"),
    ],
)
def test_mistakes_in_flags_are_named(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_flags(flags)
    assert str(caught.value).startswith(message)
    assert str(caught.value).count("\n") < 2


def test_reading_changes_no_defaults() -> None:
    before = dataclasses.replace(Config())
    combine([{"seed": 5, "agent.model.deter": 24}])
    assert Config() == before
