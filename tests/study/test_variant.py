"""Variants: code that is changed before a command runs; the example of docs/networks.md is one."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dreamerjax import cli
from dreamerjax.config import ConfigError
from dreamerjax.nets import networks
from dreamerjax.nets.networks import build_networks, init_params
from dreamerjax.study.variant import load_variant, put_in_place
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.tiny import MODEL

DOCS = Path(__file__).parents[2] / "docs" / "networks.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variant of the docs, in the current folder; what it puts in place is taken back."""
    (tmp_path / "my_networks.py").write_text(re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "Encoder", networks.Encoder)
    return "my_networks.py:waves"


def test_the_example_of_the_docs_takes_the_place_of_the_encoder(example):
    assert put_in_place(["eval", "--variant", example, "--json"]) == ["eval", "--json"]
    spaces = Spaces(obs=(ObsSpec("a", (4,)), ObsSpec("b", (1,))), actions=(ActionSpec("discrete", 2),))
    built = build_networks(MODEL, spaces, jnp.dtype(jnp.float32))
    params = init_params(built, jax.random.key(0)).world_model
    first = jax.tree.leaves(params["params"]["encoder"], is_leaf=lambda x: getattr(x, "ndim", 0) == 2)
    assert max(leaf.shape[0] for leaf in first if leaf.ndim == 2) >= 5 * (1 + 2 * 4), "numbers beside their waves"
    for lead in ((3,), (2, 3)):
        obs = {"a": jnp.ones((*lead, 4)), "b": jnp.ones((*lead, 1))}
        assert networks.apply(built.world_model, params, obs, method=built.world_model.encode).shape[:-1] == lead


@pytest.mark.parametrize(
    ("given", "rest"),
    [
        (["--variant=V", "--env", "cartpole"], ["--env", "cartpole"]),
        (["--env", "cartpole"], ["--env", "cartpole"]),
        (["show", "--variant", "V"], ["show"]),
    ],
)
def test_every_command_takes_a_variant(example, given, rest):
    assert put_in_place([word.replace("V", example) for word in given]) == rest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "names no file"),
        ("my_networks.py", "names no file"),
        ("absent.py:waves", "names no file, expected such as experiments/variants.py:NAME"),
        ("my_networks.py:absent", "has no function `absent`, expected one of WaveEncoder, waves"),
        ("broken.py:waves", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_a_variant_that_cannot_be_had_is_a_mistake(example, name, message, capsys):
    Path("broken.py").write_text("import not_there\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_variant(name)
    assert cli.main(["--variant", name, "--env", "cartpole"]) == 2
    assert message in capsys.readouterr().err
