"""Every family of environments whose package is installed; `make test-envs` installs each in a place of its own."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import SUITES, EnvError, UnknownEnvironmentError, VectorEnv, make_env, make_single
from dreamerjax.runs.presets import PRESETS, read_env
from dreamerjax.runs.settings import combine
from dreamerjax.types import ActionSpec, ObsSpec, Rows

# Warnings of other people's packages. That of SWIG, in Box2D, would end the process if it were an error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Accessing `.*` directly from `Data` is deprecated:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "environments.md"
IMAGE = ObsSpec("image", (64, 64, 3))


class Case(NamedTuple):
    """One environment of a family, and what is to be known of it."""

    package: str
    env_id: str
    obs: tuple[ObsSpec, ...]
    actions: tuple[ActionSpec, ...]
    typo: str = ""
    seen: Mapping[str, tuple[ObsSpec, ...]] = MappingProxyType({})  # other values of env.obs -> the observations
    refused: tuple[str, ...] = ()  # values of env.obs
    saved: bool = True  # whether a run goes on exactly where it was


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


def families(names: Any = CASES) -> list[Any]:
    """The families of these names, each left out where its package is not installed."""
    return [pytest.param(name, id=name, marks=needs(name)) for name in names]


def needs(name: str) -> pytest.MarkDecorator:
    package = CASES[name].package
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


@pytest.fixture(autouse=True)
def others_may_broadcast():
    with jax.numpy_rank_promotion("allow"):
        yield


def make(env_id: str, *, num_envs: int = 2, seed: int = 0, **options) -> VectorEnv:
    return make_env(EnvConfig(id=env_id, **options), num_envs=num_envs, seed=seed)


def walk(env: VectorEnv, steps: int = 50) -> list[Rows]:
    """The rows of random actions, always the same ones."""
    generator = np.random.default_rng(0)
    return [env.reset(), *(env.step(env.random_action(generator)) for _ in range(steps))]


def same(left: Any, right: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


def only(env: VectorEnv, choice: int) -> np.ndarray:
    """One choice, in every copy."""
    return np.eye(env.spaces.action_size, dtype=np.float32)[[choice] * env.num_envs]


# What holds for all of them


@pytest.mark.parametrize("name", families())
def test_rows_are_as_promised_and_follow_from_the_seed(name):
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


@pytest.mark.parametrize("name", families())
def test_going_on_after_a_restart_is_exact_where_it_can_be(name):
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


@pytest.mark.parametrize("name", families([name for name in CASES if CASES[name].typo]))
def test_a_name_that_is_not_there_is_told_with_the_one_that_was_meant(name):
    case = CASES[name]
    with pytest.raises(UnknownEnvironmentError) as caught:
        make(f"{name}:{case.typo}")
    assert str(caught.value) == f"{name}:{case.typo}: there is no such environment. Did you mean `{case.env_id}`?"
    with pytest.raises(UnknownEnvironmentError, match=r"there is no such environment\.$"):
        make(f"{name}:qqqqqqqq")


@pytest.mark.parametrize("name", families([name for name in CASES if CASES[name].seen]))
def test_what_is_seen_can_be_chosen(name):
    case = CASES[name]
    for obs, specs in case.seen.items():
        env = make(case.env_id, num_envs=1, obs=obs)
        assert env.spaces.obs == specs
        rows = env.reset()
        assert {key: values.shape[1:] for key, values in rows.obs.items()} == {one.name: one.shape for one in specs}
        if IMAGE in specs:
            assert np.ptp(rows.obs["image"]) > 20


@pytest.mark.parametrize("name", families([name for name in CASES if CASES[name].refused]))
def test_what_cannot_be_seen_is_refused(name):
    case = CASES[name]
    for obs in case.refused:
        with pytest.raises(EnvError, match=rf"{re.escape(case.env_id)}: env\.obs is {obs}, expected auto or "):
            make(case.env_id, obs=obs)


@pytest.mark.parametrize("name", [name for name, family in SUITES.items() if name != "gym"])
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(name):
    if find_spec(CASES[name].package) is None:
        with pytest.raises(UnknownEnvironmentError) as caught:
            make(CASES[name].env_id)
        assert str(caught.value) == (
            f"{name}:... needs a package that is not installed (No module named '{CASES[name].package}').\n"
            f'Install it: pip install "{SUITES[name].install}"'
        )


@pytest.mark.parametrize("name", SUITES)
def test_the_settings_of_a_family_are_complete(name):
    assert (PRESETS / f"{name}.yaml").is_file()
    for obs in ("auto", "pixels"):
        config = combine([*read_env(f"{name}:anything", obs), {"env.obs": obs}])
        assert config.env.id == f"{name}:anything"


@pytest.mark.parametrize("name", SUITES)
def test_the_docs_have_a_row_for_every_family(name):
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


# DeepMind Control


@needs("dmc")
def test_dmc_ends_by_its_time_limit_and_repeats_actions():
    """1000 frames are 500 steps; rows as those of dm_control, stepped by hand with each action twice."""
    from dm_control import suite

    env = make("dmc:cartpole-balance", num_envs=1, action_repeat=2)
    seed = int(np.random.SeedSequence(0).generate_state(1)[0])
    by_hand = suite.load("cartpole", "balance", task_kwargs={"random": seed})
    first = by_hand.reset()
    rows = env.reset()
    np.testing.assert_array_equal(rows.obs["position"][0], np.float32(first.observation["position"]))
    generator = np.random.default_rng(0)
    for step in range(1, 501):
        action = np.float32([[generator.integers(-1, 2)]])
        rows = env.step(action)
        frames = [by_hand.step(action[0]) for _ in range(2)]
        np.testing.assert_array_equal(rows.obs["velocity"][0], np.float32(frames[-1].observation["velocity"]))
        np.testing.assert_allclose(rows.reward[0], sum(frame.reward for frame in frames), rtol=1e-6)
        assert rows.is_last.all() == frames[-1].last() == (step == 500)
        assert not rows.is_terminal.any()
    assert env.step(action).is_first.all()


@needs("dmc")
def test_dmc_tasks_that_end_are_terminal():
    env = make("dmc:dog-walk", num_envs=1)
    single: Any = make_single(EnvConfig(id="dmc:dog-walk"))
    single.reset(seed=0)
    over = single._env.step(single.action_space.sample())._replace(discount=0.0)
    over = over._replace(step_type=over.step_type.LAST)
    single._env.step = lambda action: over
    assert single.step(None)[2:4] == (True, False)
    env.close()


@needs("dmc")
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("cup-catch", ("ball_in_cup", "catch")),
        ("ball_in_cup-catch", ("ball_in_cup", "catch")),
        ("finger-turn-easy", ("finger", "turn_easy")),
        ("finger-turn_easy", ("finger", "turn_easy")),
        ("Walker_Walk", ("walker", "walk")),
    ],
)
def test_dmc_names(name, task):
    single: Any = make_single(EnvConfig(id=f"dmc:{name}"))
    assert single._task == task


@needs("dmc")
@pytest.mark.parametrize(("task", "camera"), [("walker-walk", 0), ("quadruped-walk", 2)])
def test_dmc_is_rendered_in_its_size_by_the_published_camera(task, camera):
    env = make(f"dmc:{task}", num_envs=1, obs="pixels", image=ImageConfig(height=32, width=48))
    single: Any = make_single(EnvConfig(id=f"dmc:{task}", obs="pixels"))
    single.reset(seed=int(np.random.SeedSequence(0).generate_state(1)[0]))
    expected = single._env.physics.render(32, 48, camera_id=camera)
    np.testing.assert_array_equal(env.reset().obs["image"][0], expected)
    film = env.render()
    assert film is not None
    assert film.shape == (240, 320, 3)


@needs("dmc")
def test_dmc_draws_once_for_repeated_actions(monkeypatch):
    from dm_control.mujoco import Physics

    drawn, render = [], Physics.render
    monkeypatch.setattr(
        Physics, "render", lambda self, *size, **given: drawn.append(size) or render(self, *size, **given)
    )
    env = make("dmc:walker-walk", num_envs=1, obs="pixels", action_repeat=4)
    env.reset()
    for _ in range(3):
        env.step(np.zeros((1, 6), np.float32))
    assert drawn == [(64, 64)] * 4


@needs("dmc")
def test_dmc_says_what_is_missing_where_nothing_can_draw():
    program = (
        "from dreamerjax.config import EnvConfig; from dreamerjax.envs import make_env;"
        "env = make_env(EnvConfig(id='dmc:cartpole-swingup'), num_envs=1, seed=0); env.reset(); print(env.render());"
        "make_env(EnvConfig(id='dmc:cartpole-swingup', obs='pixels'), num_envs=1, seed=0)"
    )
    environment = {**os.environ, "MUJOCO_GL": "disable"}
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.stdout == "None\n"
    assert "env.obs is pixels, but MuJoCo can draw neither through EGL nor through OSMesa here." in ran.stderr
    assert "apt install libegl1 libgl1-mesa-dri" in ran.stderr


# MiniGrid


@needs("minigrid")
def test_minigrid_cells_are_within_their_classes_and_a_goal_is_a_success():
    """On the empty field, two steps ahead, a turn to the right and two steps ahead come to the goal."""
    env = make("minigrid:MiniGrid-Empty-5x5-v0", num_envs=1)
    rows = env.reset()
    assert (rows.obs["direction"].dtype, rows.obs["cells"].dtype) == (np.uint8, np.uint8)
    for choice in (2, 2, 1, 2, 2):
        assert rows.obs["cells"].max() < 11
        assert env.take_events() == []
        rows = env.step(only(env, choice))
    assert rows.is_terminal.all()
    assert rows.reward[0] > 0.9
    assert [event.metrics for event in env.take_events()] == [{"success": 1.0}]
    for _ in range(101):
        rows = env.step(only(env, 0))
    assert (rows.is_last.all(), rows.is_terminal.any()) == (True, False)
    assert [event.metrics for event in env.take_events()] == [{"success": 0.0}]


# The Behaviour Suite


@needs("bsuite")
def test_bsuite_experiments_are_those_of_the_suite():
    """Rows of a catch stepped by hand; what the suite scores is told at the end of each episode."""
    from bsuite.environments.catch import Catch

    env = make("bsuite:catch/0", num_envs=1, seed=4)
    by_hand = Catch(seed=int(np.random.SeedSequence(4).generate_state(1)[0]))
    rows, now = env.reset(), by_hand.reset()
    for _ in range(100):
        np.testing.assert_array_equal(rows.obs["state"][0], now.observation.ravel())
        assert (rows.reward[0], rows.is_terminal[0]) == (now.reward or 0.0, now.last())
        if now.last():
            assert [event.metrics for event in env.take_events()] == [by_hand.bsuite_info()]
        rows, now = env.step(only(env, 1)), by_hand.step(1)


@needs("bsuite")
def test_bsuite_noise_goes_on_exactly_too():
    env, fresh = make("bsuite:catch_noise/4"), make("bsuite:catch_noise/4")
    walk(env, 13)
    state = env.state()
    assert state is not None
    fresh.load(state)
    for _ in range(20):
        rows = env.step(only(env, 2))
        assert same(rows, fresh.step(only(env, 2)))
        assert (rows.is_first | (rows.reward != np.round(rows.reward))).all()


# POPGym


@needs("popgym")
def test_popgym_names_are_short_or_whole():
    short, whole = (make(f"popgym:{name}") for name in ("RepeatPreviousEasy", "popgym-RepeatPreviousEasy-v0"))
    assert short.spaces == whole.spaces == ((ObsSpec("state", (), 4),), (ActionSpec("discrete", 4),))
    assert same(walk(short), walk(whole))


# Atari


@needs("atari")
def test_atari_shows_the_brighter_of_the_last_two_of_four_frames():
    """Against ALE stepped frame by frame, from the saved state of the environment."""
    import ale_py

    single: Any = make_single(EnvConfig(id="atari100k:space_invaders"))
    single.reset(seed=0)
    for action in range(6):
        before = single._ale.cloneState(include_rng=True)
        seen, reward, *_ = single.step(action)
        after = single._ale.cloneState(include_rng=True)
        single._ale.restoreState(before)
        earned, frames = 0, []
        for _ in range(4):
            earned += single._ale.act(ale_py.ALEInterface.getMinimalActionSet(single._ale)[action])
            frames.append(single._ale.getScreenRGB())
        single._ale.restoreState(after)
        np.testing.assert_array_equal(seen["image"], np.maximum(frames[2], frames[3]))
        assert reward == earned
    assert any((frames[2] != frames[3]).any((0, 1)))


@needs("atari")
def test_atari_starts_are_delayed_by_chance_and_repeated_actions_are_those_of_the_benchmark():
    frames = set()
    for seed in range(8):
        single: Any = make_single(EnvConfig(id="atari:pong"))
        single.reset(seed=seed)
        frames.add(single._ale.getEpisodeFrameNumber())
    assert len(frames) > 3
    assert max(frames) <= 30
    assert single._ale.getFloat("repeat_action_probability") == 0.25
    other: Any = make_single(EnvConfig(id="atari100k:pong"))
    assert other._ale.getFloat("repeat_action_probability") == 0.0
    assert (single.action_space.n, other.action_space.n) == (18, 6)


@needs("atari")
def test_atari_episodes_end_with_the_game_not_with_a_life_or_by_their_limit(monkeypatch):
    single: Any = make_single(EnvConfig(id="atari100k:breakout"))
    single.reset(seed=0)
    lives, terminated, steps = [], False, 0
    while not terminated:
        _, _, terminated, truncated, _ = single.step([1, 3][steps % 2])  # fire, and to the left
        lives.append(single._ale.lives())
        steps += 1
        assert not truncated
        assert terminated == (lives[-1] == 0)
    assert set(lives) == {5, 4, 3, 2, 1, 0}

    monkeypatch.setattr("dreamerjax.envs.atari.LIMIT", 42)
    single.reset(seed=0)
    ends = [single.step(0)[2:4] for _ in range(11)]
    assert ends == [(False, False)] * 10 + [(False, True)]


@needs("atari")
def test_atari_colours_and_games_for_two():
    env = make("atari:pong", image=ImageConfig(height=96, width=96, colour="grey"))
    assert env.spaces.obs == (ObsSpec("image", (96, 96, 1)),)
    with pytest.raises(UnknownEnvironmentError, match="atari:combat: there is no such environment"):
        make("atari:combat")


# Crafter


@needs("crafter")
def test_crafter_tells_what_was_unlocked():
    """Noise, cut short; the score is over all episodes of the copy."""
    from dreamerjax.envs.crafter_env import crafter_score

    single: Any = make_single(EnvConfig(id="crafter:reward"))
    single.reset(seed=0)
    single._world._length = 150
    totals, generator = [], np.random.default_rng(0)
    for _ in range(2):
        single.reset()
        truncated, earned = False, 0.0
        while not truncated:
            _, reward, terminated, truncated, info = single.step(generator.integers(single.action_space.n))
            earned += reward
            assert not terminated
            assert ("metrics" in info) == truncated
        unlocked = {name: value for name, value in info["metrics"].items() if name.startswith("achievement_")}
        assert len(unlocked) == 22
        assert "achievement_collect_wood" in unlocked
        assert set(unlocked.values()) == {0.0, 1.0}
        assert abs(sum(unlocked.values()) - earned) < 1  # health counts for tenths
        totals.append(list(unlocked.values()))
        assert info["metrics"]["crafter_score"] == pytest.approx(crafter_score(np.mean(totals, axis=0)))


@needs("crafter")
def test_crafter_death_is_terminal_and_rewards_can_be_left_out():
    for task, loss in (("reward", -0.9), ("noreward", 0.0)):
        single: Any = make_single(EnvConfig(id=f"crafter:{task}"))
        single.reset(seed=0)
        single._world._player.health = 0
        _, reward, terminated, truncated, _ = single.step(0)
        assert reward == pytest.approx(loss)
        assert (terminated, truncated) == (True, False)


@needs("crafter")
def test_crafter_score_is_the_published_one():
    """The published rates of DreamerV3's ancestors need not be known: the formula's corners are."""
    from dreamerjax.envs.crafter_env import crafter_score

    assert crafter_score([1.0] * 22) == pytest.approx(100)
    assert crafter_score([0.0] * 22) == 0
    assert crafter_score([1.0, 0.0]) == pytest.approx(101**0.5 - 1)


@needs("crafter")
def test_crafter_worlds_stay_the_same_for_long():
    """Creatures come and go by chance: their order must not depend on where they are in memory."""
    assert same(walk(make("crafter:reward", num_envs=1), 400), walk(make("crafter:reward", num_envs=1), 400))


# Memory Maze


@needs("memory-maze")
def test_memory_maze_shows_the_colour_to_look_for_and_ends_by_its_time_limit():
    env = make("memory-maze:9x9", num_envs=1)
    rows = env.reset()
    border = rows.obs["image"][0, 0]
    assert (border == border[0]).all()
    single: Any = make_single(EnvConfig(id="memory-maze:9x9"))
    single.reset(seed=0)
    single._env._env._env._env._time_limit = 1.0  # seconds, four steps
    assert [single.step(0)[2:4] for _ in range(5)][3] == (False, True)


# In batch


@needs("gymnax")
def test_gymnax_rows_are_those_of_the_environment_stepped_by_hand():
    import gymnax

    env: Any = make("gymnax:CartPole-v1")
    by_hand, params = gymnax.make("CartPole-v1")
    rows, generator, ends = env.reset(), np.random.default_rng(0), 0
    for _ in range(60):
        before, action = env._at.state, env.random_action(generator)
        ended = rows.is_last
        rows = env.step(action)
        for copy in np.flatnonzero(~ended):
            state = jax.tree.map(lambda leaf, copy=copy: leaf[copy], before)
            obs, _, reward, done, _ = by_hand.step_env(jax.random.PRNGKey(0), state, action[copy].argmax(), params)
            np.testing.assert_allclose(rows.obs["state"][copy], obs, rtol=1e-5, atol=1e-6)
            assert (rows.reward[copy], rows.is_last[copy], rows.is_terminal[copy]) == (reward, done, done)
        ends += rows.is_last.sum()
    assert ends >= 3


@needs("gymnax")
def test_gymnax_time_limits_are_told_from_ends():
    env: Any = make("gymnax:CartPole-v1", num_envs=3)
    env.reset()
    # The first two are at their limit with the next step, where the second one falls as well.
    state = env._at.state.replace(
        time=jnp.array([499, 499, 0]),
        **{name: jnp.zeros(3) for name in ("x", "x_dot", "theta_dot")},
        theta=jnp.array([0.0, 1.0, 1.0]),
    )
    env._at = env._at._replace(state=state)
    rows = env.step(only(env, 0))
    assert rows.is_last.tolist() == [True, True, True]
    assert rows.is_terminal.tolist() == [False, True, True]


@needs("brax")
def test_brax_rows_are_those_of_the_environment_stepped_by_hand(monkeypatch):
    """With a limit of 6 steps, before which some copies fall."""
    monkeypatch.setattr("dreamerjax.envs.brax_env.LIMIT", 6)
    from dreamerjax.envs.brax_env import envs

    env: Any = make("brax:inverted_pendulum", num_envs=3)
    with pytest.warns(UserWarning, match="not actively being maintained"):
        by_hand = envs.get_environment("inverted_pendulum")
    step = jax.jit(jax.vmap(by_hand.step))
    rows, times = env.reset(), np.zeros(3, int)
    ends = np.zeros(2, int)
    for turn in range(40):
        action = np.float32([[0.0], [1.0], [-1.0 if turn % 3 else 1.0]])
        ended, before = rows.is_last, env._at.state
        rows, now = env.step(action), step(before, jnp.asarray(action))
        times = np.where(ended, 0, times + 1)
        on = ~ended
        fallen = np.asarray(now.done > 0)
        np.testing.assert_allclose(rows.obs["state"][on], np.asarray(now.obs)[on], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rows.reward[on], np.asarray(now.reward)[on], rtol=1e-5)
        np.testing.assert_array_equal(rows.is_terminal[on], fallen[on])
        np.testing.assert_array_equal(rows.is_last[on], (fallen | (times == 6))[on])
        ends += [rows.is_terminal.sum(), (rows.is_last & ~rows.is_terminal).sum()]
    assert (ends > 0).all()


@needs("brax")
def test_brax_tells_what_the_reward_was_made_of():
    from dreamerjax.envs.brax_env import _task

    task, key = _task("reacher"), jax.random.PRNGKey(0)
    state, _ = jax.eval_shape(task.reset, key)
    _, arrival = jax.eval_shape(task.step, key, state, jnp.zeros(2))
    assert set(arrival.metrics) == {"reward_dist", "reward_ctrl"}


@needs("craftax")
def test_craftax_time_limits_are_told_from_deaths_and_what_was_unlocked_is_told():
    env: Any = make("craftax:Craftax-Classic-Symbolic-v1", num_envs=3)
    env.reset()
    state = env._at.state.replace(
        timestep=jnp.array([9999, 9999, 5]),
        player_health=jnp.array([9, 0, 0]),
        achievements=env._at.state.achievements.at[0, 0].set(True),
    )
    env._at = env._at._replace(state=state)
    rows = env.step(only(env, 0))
    assert rows.is_last.all()
    assert rows.is_terminal.tolist() == [False, True, True]
    events = env.take_events()
    assert [event.copy for event in events] == [0, 1, 2]
    assert [sum(event.metrics.values()) for event in events] == [1, 0, 0]
    assert events[0].metrics["achievement_collect_wood"] == 1
    assert env.step(only(env, 0)).is_first.all()


# Gymnasium's own that need a package


@needs("mujoco")
def test_mujoco_draws_each_copy_whatever_others_are_closed():
    kept, closed = (make("gym:InvertedPendulum-v5", num_envs=1, obs="pixels") for _ in range(2))
    first = kept.reset()
    closed.reset()
    closed.close()
    assert same(kept.reset(), first)


@needs("box2d")
def test_box2d_car_racing_is_seen_as_it_is():
    env = make("gym:CarRacing-v3", num_envs=1)
    assert env.spaces == ((IMAGE,), (ActionSpec("continuous", 3),))
    assert gymnasium.spec("CarRacing-v3").max_episode_steps == 1000
