"""Environments by their IDs: the user's own, unknown ones, and packages that are missing."""

import os
import sys
import tomllib
from pathlib import Path

import gymnasium
import pytest

from dreamerjax.envs import (
    SUITES,
    EnvError,
    UnknownEnvironmentError,
    dependencies,
)
from tests.envs.scripted import make

ROOT = Path(__file__).parents[2]


def test_the_users_own_module(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('MyTask-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        env = make("gym:my_task:MyTask-v0", num_envs=1, seed=0)
        assert env.reset().is_first.all()
    finally:
        gymnasium.registry.pop("MyTask-v0", None)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        (
            "Acrobot-v1",
            "The environment `Acrobot-v1` names no suite, expected {known}. Did you mean `gym:Acrobot-v1`?",
        ),
        (
            "cartpole-v1",
            "The environment `cartpole-v1` names no suite, expected {known}. Did you mean `gym:CartPole-v1`?",
        ),
        ("xyzzy", "The environment `xyzzy` names no suite, expected {known}."),
        ("", "The environment `` names no suite, expected {known}."),
        (
            "gim:CartPole-v1",
            "The environment `gim:CartPole-v1` has an unknown suite, 'gim', expected {known}. "
            "Did you mean `gym:CartPole-v1`?",
        ),
        ("gym:CartPool-v1", "Gymnasium has no environment `CartPool-v1`. Did you mean `gym:CartPole-v1`?"),
        ("gym:CartPole", "Gymnasium has no environment `CartPole`. Did you mean `gym:CartPole-v1`?"),
        ("gym:CartPole-v9", "Gymnasium has no environment `CartPole-v9`. Did you mean `gym:CartPole-v1`?"),
        ("gym:xyzzy", "Gymnasium has no environment `xyzzy`. Is the package that registers it installed?"),
        (
            "gym:no_such_module:A-v0",
            "gym:no_such_module:A-v0: the module `no_such_module` cannot be imported: No module named 'no_such_module'"
            "\n{nowhere}",
        ),
        (
            "no_such_module:A",
            "The environment `no_such_module:A` has an unknown suite, 'no_such_module', expected {known}.\n{nowhere}",
        ),
    ],
)
def test_unknown_environments(env_id, message):
    with pytest.raises(UnknownEnvironmentError) as caught:
        make(env_id, num_envs=1, seed=0)
    known = ", ".join(f"{family}:ID" for family in SUITES)
    nowhere = (
        f"There is no module `no_such_module` in the current folder, {os.getcwd()}, or among the installed packages."
    )
    assert str(caught.value) == message.replace("{known}", f"{known}, or module:function of your own").replace(
        "{nowhere}", nowhere
    )


def test_the_error_of_a_missing_dependency_has_the_command_to_install_it(register):
    def entry_point():
        raise gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')

    with pytest.raises(UnknownEnvironmentError) as caught:
        make(register(entry_point), num_envs=1, seed=0)
    assert str(caught.value) == (
        'gym:Scripted-v0 cannot be made: Box2D is not installed, run `pip install "gymnasium[box2d]"`\n'
        'Install it: pip install "dreamerjax[box2d]"'
    )


@pytest.mark.parametrize(
    ("env_id", "absent", "extra"),
    [
        ("gym:LunarLander-v3", "Box2D", "box2d"),
        ("gym:CarRacing-v3", "Box2D", "box2d"),
        ("gym:HalfCheetah-v5", "mujoco", "mujoco"),
        ("gym:ALE/Pong-v5", "ale_py", "atari"),
        ("gym:ale_py:ALE/Pong-v5", "ale_py", "atari"),
        ("gym:MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("ale_py:make", "ale_py", "atari"),
        ("needy:imports_when_called", "mujoco", "mujoco"),
        ("needy:makes_lunar_lander", "Box2D", "box2d"),
        ("needs_crafter:Env", "crafter", "crafter"),
        ("needy:draws_nothing", "pygame", ""),
        ("gym:CartPole-v1", "pygame", ""),
        ("gym:FrozenLake-v1", "pygame", ""),
    ],
)
def test_errors_name_missing_packages_with_the_command_to_install_them(monkeypatch, tmp_path, env_id, absent, extra):
    (tmp_path / "needy.py").write_text(
        "import gymnasium\n"
        "def imports_when_called():\n    import mujoco\n"
        "def makes_lunar_lander():\n    return gymnasium.make('LunarLander-v3')\n"
        "def draws_nothing():\n    return gymnasium.make('Acrobot-v1', render_mode='rgb_array')\n"
    )
    (tmp_path / "needs_crafter.py").write_text("import crafter.engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("needy", "needs_crafter"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for module in [name for name in sys.modules if name.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, module)
    for module in [absent, *(name for name in sys.modules if name.startswith(f"{absent}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvError) as caught:
        make(env_id, num_envs=1, seed=0, obs="pixels" if absent == "pygame" else "auto")
    requirement = f'"dreamerjax[{extra}]"' if extra else "pygame"
    assert str(caught.value).splitlines()[-1] == f"Install it: pip install {requirement}"


def test_the_error_names_an_unknown_missing_package(monkeypatch, tmp_path):
    (tmp_path / "needy_too.py").write_text("def env():\n    import no_such_simulator.arm\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvError) as caught:
        make("needy_too:env", num_envs=1, seed=0)
    assert str(caught.value).endswith("Install the package that provides it, probably: pip install no_such_simulator")
    with pytest.raises(EnvError) as caught:
        make("needy_too.part:env", num_envs=1, seed=0)
    assert "install" not in str(caught.value), "the module exists, but has no such submodule"


def test_all_extras_in_messages_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {f"dreamerjax[{name}]" for name in project["optional-dependencies"]}
    named = {
        *dependencies.MODULES.values(),
        *dependencies.EXTRAS.values(),
        *(suite.install for suite in SUITES.values()),
    }
    assert named <= extras | {"pygame", "dreamerjax"}
    assert set(dependencies.REGISTERED_BY.values()) <= set(dependencies.MODULES)
