"""All suites of environments with an installed package; `make test-envs` installs each in a separate environment."""

import itertools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from dreamerjax.envs import SUITES, EnvError, UnknownEnvironmentError
from dreamerjax.runs.presets import PRESETS, read_env
from dreamerjax.runs.settings import combine
from dreamerjax.types import ActionSpec, ObsSpec
from tests.envs.suites import IMAGE, THIRD_PARTY, make, needs, same, walk

pytestmark = THIRD_PARTY

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "environments.md"


class Case(NamedTuple):
    """One environment of a suite, with its expected properties."""

    package: str
    env_id: str
    obs: tuple[ObsSpec, ...]
    actions: tuple[ActionSpec, ...]
    typo: str = ""
    seen: Mapping[str, tuple[ObsSpec, ...]] = MappingProxyType({})  # other values of env.obs -> the observations
    refused: tuple[str, ...] = ()  # values of env.obs
    saved: bool = True  # whether its state can be saved


WALKER = (ObsSpec("height", (1,)), ObsSpec("orientations", (14,)), ObsSpec("velocity", (9,)))
CELLS = (ObsSpec("cells", (7, 7, 3), 11), ObsSpec("direction", (), 4))
CASES = {
    "dmc": Case(
        "dm_control",
        "dmc:walker-walk",
        WALKER,
        (ActionSpec("continuous", 6),),
        typo="walker-wlak",
        seen={"state": WALKER, "pixels": (IMAGE,), "both": (WALKER[0], IMAGE, *WALKER[1:])},
    ),
    "minigrid": Case(
        "minigrid",
        "minigrid:MiniGrid-DoorKey-6x6-v0",
        CELLS,
        (ActionSpec("discrete", 7),),
        typo="minigrid-doorkey-6x6",
        seen={"state": CELLS, "pixels": (CELLS[1], IMAGE), "both": (*CELLS, IMAGE)},
    ),
    "bsuite": Case(
        "bsuite",
        "bsuite:catch/0",
        (ObsSpec("state", (50,)),),
        (ActionSpec("discrete", 3),),
        typo="catch0",
        refused=("pixels", "both"),
    ),
    "popgym": Case(
        "popgym",
        "popgym:AutoencodeEasy",
        (ObsSpec("0", (), 2), ObsSpec("1", (), 4)),
        (ActionSpec("discrete", 4),),
        typo="AutencodeEasy",
        refused=("pixels", "both"),
    ),
    "atari": Case(
        "ale_py",
        "atari:ms_pacman",
        (IMAGE,),
        (ActionSpec("discrete", 18),),
        typo="mspacman",
        seen={"pixels": (IMAGE,), "state": (ObsSpec("state", (128,)),), "both": (IMAGE, ObsSpec("state", (128,)))},
    ),
    "atari100k": Case("ale_py", "atari100k:ms_pacman", (IMAGE,), (ActionSpec("discrete", 9),), typo="Ms-Pacman"),
    "crafter": Case(
        "crafter",
        "crafter:reward",
        (IMAGE,),
        (ActionSpec("discrete", 17),),
        typo="rewards",
        seen={"pixels": (IMAGE,)},
        refused=("state", "both"),
    ),
    "memory-maze": Case(
        "memory_maze",
        "memory-maze:9x9",
        (IMAGE,),
        (ActionSpec("discrete", 6),),
        typo="9X9-",
        refused=("state", "both"),
        saved=False,
    ),
    "gymnax": Case(
        "gymnax",
        "gymnax:CartPole-v1",
        (ObsSpec("state", (4,)),),
        (ActionSpec("discrete", 2),),
        typo="cartpole",
        refused=("pixels", "both"),
    ),
    "brax": Case(
        "brax",
        "brax:inverted_pendulum",
        (ObsSpec("state", (4,)),),
        (ActionSpec("continuous", 1),),
        typo="invertedpendulum",
        refused=("pixels", "both"),
    ),
    "craftax": Case(
        "craftax",
        "craftax:Craftax-Classic-Symbolic-v1",
        (ObsSpec("state", (1345,)),),
        (ActionSpec("discrete", 17),),
        typo="craftax-classic-symbolic",
        refused=("pixels", "both"),
    ),
    "box2d": Case(
        "Box2D",
        "gym:BipedalWalker-v3",
        (ObsSpec("state", (24,)),),
        (ActionSpec("continuous", 4),),
        seen={"both": (IMAGE, ObsSpec("state", (24,)))},
        saved=False,
    ),
    "mujoco": Case(
        "mujoco",
        "gym:InvertedPendulum-v5",
        (ObsSpec("state", (4,)),),
        (ActionSpec("continuous", 1),),
        seen={"both": (IMAGE, ObsSpec("state", (4,)))},
        saved=False,
    ),
}


def suites(names: Any = CASES) -> list[Any]:
    """The suites of these names, each skipped if its package is not installed."""
    return [pytest.param(name, id=name, marks=needs(CASES[name].package)) for name in names]


@pytest.mark.parametrize("name", suites())
def test_rows_have_the_right_shapes_and_follow_from_the_seed(name):
    case = CASES[name]
    env, twin, other = make(case.env_id), make(case.env_id), make(case.env_id, seed=1)
    assert env.spaces == (case.obs, case.actions)
    rows = walk(env)
    assert same(rows, walk(twin))
    assert not same(rows, walk(other))
    assert any(not np.array_equal(values[0], values[1]) for row in rows for values in row.obs.values())
    for row in rows:
        for spec in case.obs:
            assert (row.obs[spec.name].shape, row.obs[spec.name].dtype) == ((2, *spec.shape), spec.dtype)
        assert (row.reward.shape, row.reward.dtype) == ((2,), np.float32)
    for before, after in itertools.pairwise(rows):
        np.testing.assert_array_equal(after.is_first, before.is_last)
        assert not after.prev_action[after.is_first].any()
        assert not (after.is_terminal & ~after.is_last).any()
    assert same(env.reset(), rows[0])


@pytest.mark.parametrize("name", suites())
def test_resuming_is_exact_where_it_is_supported(name):
    case = CASES[name]
    env = make(case.env_id)
    walk(env, 20)
    state = env.state()
    assert (state is not None) == case.saved
    if state is not None:
        fresh = make(case.env_id, seed=7)
        fresh.reset()
        fresh.load(state)
        generator = np.random.default_rng(1)
        for _ in range(60):
            action = env.random_action(generator)
            assert same(env.step(action), fresh.step(action))


@pytest.mark.parametrize("name", suites([name for name in CASES if CASES[name].typo]))
def test_the_error_of_a_misspelled_name_suggests_the_right_one(name):
    case = CASES[name]
    with pytest.raises(UnknownEnvironmentError) as caught:
        make(f"{name}:{case.typo}")
    assert str(caught.value) == f"{name}:{case.typo}: there is no such environment. Did you mean `{case.env_id}`?"
    with pytest.raises(UnknownEnvironmentError, match=r"there is no such environment\.$"):
        make(f"{name}:qqqqqqqq")


@pytest.mark.parametrize("name", suites([name for name in CASES if CASES[name].seen]))
def test_env_obs_selects_observations(name):
    case = CASES[name]
    for obs, specs in case.seen.items():
        env = make(case.env_id, num_envs=1, obs=obs)
        assert env.spaces.obs == specs
        rows = env.reset()
        assert {key: values.shape[1:] for key, values in rows.obs.items()} == {one.name: one.shape for one in specs}
        if IMAGE in specs:
            assert np.ptp(rows.obs["image"]) > 20


@pytest.mark.parametrize("name", suites([name for name in CASES if CASES[name].refused]))
def test_unsupported_env_obs_is_refused(name):
    case = CASES[name]
    for obs in case.refused:
        with pytest.raises(EnvError, match=rf"{re.escape(case.env_id)}: env\.obs is {obs}, expected auto or "):
            make(case.env_id, obs=obs)


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if name != "gym"])
def test_the_error_of_a_missing_package_has_the_command_to_install_it(name):
    if find_spec(CASES[name].package) is None:
        with pytest.raises(UnknownEnvironmentError) as caught:
            make(CASES[name].env_id)
        assert str(caught.value) == (
            f"{name}:... needs a package that is not installed (No module named '{CASES[name].package}').\n"
            f'Install it: pip install "{SUITES[name].install}"'
        )


@pytest.mark.parametrize("name", SUITES)
def test_the_settings_of_a_suite_are_complete(name):
    assert (PRESETS / f"{name}.yaml").is_file()
    for obs in ("auto", "pixels"):
        config = combine([*read_env(f"{name}:anything", obs), {"env.obs": obs}])
        assert config.env.id == f"{name}:anything"


@pytest.mark.parametrize("name", SUITES)
def test_the_docs_have_a_row_for_every_suite(name):
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| ") and f"`{name}:" in line]
    assert rows
    assert name == "gym" or all(f'`"{SUITES[name].install}"`' in row and f"`{name}.yaml`" in row for row in rows)


def test_the_example_of_the_docs_works(tmp_path, monkeypatch):
    example = DOCS.read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "thermostat.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    env = make("thermostat:Thermostat")
    assert env.spaces.obs == (ObsSpec("degrees", (2,)), ObsSpec("hour", (), 24))
    rows = walk(env, 48)
    assert [row.is_last.all() for row in rows] == [False] * 48 + [True]
    assert not rows[-1].is_terminal.any()
    assert [set(event.metrics) for event in env.take_events()] == [{"degrees_at_last"}] * 2
