"""Environments of the user's functions: arguments, functions that fail, and failed imports."""

import functools

import gymnasium
import pytest

from dreamerjax.config import ConfigError, EnvConfig
from dreamerjax.envs import EnvError, EnvFailureError, make_env
from tests.envs.odd_envs import Counting


def raises(error, **kwargs):
    raise error


class Sized(Counting):
    def __init__(self, size, colour="red"):
        self.size, self.colour = size, colour


MAKERS = {
    "Sized": Sized,
    "raises": functools.partial(raises, OSError("address already in use")),
    "gives_nothing": lambda: None,
}


@pytest.fixture
def makers(monkeypatch):
    for name, maker in MAKERS.items():
        monkeypatch.setattr(f"tests.envs.test_imported.{name}", maker, raising=False)
    yield "tests.envs.test_imported"
    gymnasium.registry.pop("Sized-v0", None)


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "expected"),
    [
        ("Sized", "", EnvFailureError, "raised TypeError: .* missing 1 required positional argument: 'size'"),
        ("Sized", '{"size": 3, "shape": 1}', EnvFailureError, "unexpected keyword argument 'shape'"),
        ("raises", "", EnvFailureError, "cannot be made: it raised OSError: address already in use"),
        ("gives_nothing", "", EnvError, "returned NoneType, expected a gymnasium.Env"),
    ],
)
def test_the_error_names_a_function_that_fails(makers, name, kwargs, error, expected):
    with pytest.raises(error, match=expected) as caught:
        make_env(EnvConfig(id=f"{makers}:{name}", kwargs=kwargs), num_envs=1, seed=0)
    assert ("--env.kwargs" in str(caught.value)) == (name == "Sized")


def test_arguments_reach_the_users_function_and_gymnasium(makers):
    kwargs = '{"size": 3, "colour": "blue"}'
    gymnasium.register("Sized-v0", Sized)
    for env_id in (f"{makers}:Sized", "gym:Sized-v0"):
        env = make_env(EnvConfig(id=env_id, kwargs=kwargs), num_envs=1, seed=0)
        made = env._envs[0].unwrapped
        assert (made.size, made.colour) == (3, "blue")
    with pytest.raises(EnvFailureError, match="missing 1 required positional argument"):
        make_env(EnvConfig(id="gym:Sized-v0"), num_envs=1, seed=0)


@pytest.mark.parametrize("env_id", ["crafter:reward", "gymnax:CartPole-v1"])
def test_suites_without_arguments_refuse_them(env_id):
    with pytest.raises(EnvError, match=r"expected none: gym:ID and module:function take arguments"):
        make_env(EnvConfig(id=env_id, kwargs='{"a": 1}'), num_envs=1, seed=0)


@pytest.mark.parametrize("kwargs", ["3", "[1]", "level=3", "{level: 3}"])
def test_arguments_must_be_a_mapping(makers, kwargs):
    with pytest.raises(ConfigError, match="expected a JSON object of arguments"):
        make_env(EnvConfig(id=f"{makers}:Sized", kwargs=kwargs), num_envs=1, seed=0)


@pytest.mark.parametrize(
    ("files", "env_id", "expected"),
    [
        ({"pkg/__init__.py": "import no_such_library"}, "pkg:make", "No module named 'no_such_library'"),
        ({"pkg/__init__.py": "import no_such_library", "pkg/envs.py": ""}, "pkg.envs:make", "import no_such_library"),
        ({"pkg/__init__.py": "", "pkg/envs.py": "1 / 0"}, "pkg.envs:make", "ZeroDivisionError: division by zero"),
        ({"pkg/__init__.py": "def make(:"}, "pkg:make", "SyntaxError"),
        ({"pkg/__init__.py": ""}, "pkg.envs:make", "No module named 'pkg.envs'"),
        ({"pkg/__init__.py": "import no_such_library"}, "gym:pkg:A-v0", "import no_such_library"),
    ],
    ids=str,
)
def test_the_error_of_a_failed_import_has_its_reason(tmp_path, monkeypatch, files, env_id, expected):
    package = f"package_{abs(hash((env_id, expected)))}"
    for name, text in files.items():
        file = tmp_path / name.replace("pkg", package)
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvError) as caught:
        make_env(EnvConfig(id=env_id.replace("pkg", package)), num_envs=1, seed=0)
    assert "cannot be imported" in str(caught.value)
    assert expected.replace("pkg", package) in str(caught.value)
