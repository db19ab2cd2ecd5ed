"""Variants: functions that change the program before a command runs, such as the example in docs/networks.md."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dreamerjax import cli
from dreamerjax.config import ConfigError
from dreamerjax.nets import networks
from dreamerjax.nets.networks import build_networks, init_params
from dreamerjax.study.variant import apply_variant, load_variant
from dreamerjax.types import ActionSpec, ObsSpec, Spaces
from tests.tiny import MODEL

DOCS = Path(__file__).parents[2] / "docs" / "networks.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variant of the docs, in the current folder; the fixture undoes its change."""
    (tmp_path / "my_networks.py").write_text(re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "Encoder", networks.Encoder)
    return "my_networks.py:waves"


def test_the_example_of_the_docs_replaces_the_encoder(example):
    assert apply_variant(["eval", "--variant", example, "--json"]) == ["eval", "--json"]
    spaces = Spaces(obs=(ObsSpec("a", (4,)), ObsSpec("b", (1,))), actions=(ActionSpec("discrete", 2),))
    built = build_networks(MODEL, spaces, jnp.dtype(jnp.float32))
    params = init_params(built, jax.random.key(0)).world_model
    first = jax.tree.leaves(params["params"]["encoder"], is_leaf=lambda x: getattr(x, "ndim", 0) == 2)
    assert max(leaf.shape[0] for leaf in first if leaf.ndim == 2) >= 5 * (1 + 2 * 4), "the numbers and their waves"
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
    assert apply_variant([word.replace("V", example) for word in given]) == rest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "does not exist, expected FILE.py:NAME"),
        ("my_networks.py", "does not exist, expected FILE.py:NAME"),
        ("absent.py:waves", "The file of the variant `absent.py:waves` does not exist, expected FILE.py:NAME"),
        ("my_networks.py:absent", "has no function `absent`, expected one of WaveEncoder, waves"),
        ("broken.py:waves", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_a_missing_or_broken_variant_gives_an_error(example, name, message, capsys):
    Path("broken.py").write_text("import not_there\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_variant(name)
    assert cli.main(["--variant", name, "--env", "cartpole"]) == 2
    assert message in capsys.readouterr().err
