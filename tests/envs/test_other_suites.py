"""MiniGrid, the Behaviour Suite, POPGym, Memory Maze, and Gymnasium's MuJoCo and Box2D."""

from typing import Any

import gymnasium
import numpy as np

from dreamerjax.config import EnvConfig
from dreamerjax.envs import make_single
from dreamerjax.types import ActionSpec, ObsSpec
from tests.envs.suites import IMAGE, THIRD_PARTY, make, needs, only, same, walk

pytestmark = THIRD_PARTY


@needs("minigrid")
def test_minigrid_cells_are_within_their_classes_and_a_goal_is_a_success():
    """In the empty room, two steps, a turn to the right and two steps reach the goal."""
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


@needs("bsuite")
def test_bsuite_experiments_are_those_of_the_suite():
    """Compares rows with bsuite's catch, stepped by hand; its scores are metrics at the end of each episode."""
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
def test_bsuite_noise_is_resumed_exactly():
    env, fresh = make("bsuite:catch_noise/4"), make("bsuite:catch_noise/4")
    walk(env, 13)
    state = env.state()
    assert state is not None
    fresh.load(state)
    for _ in range(20):
        rows = env.step(only(env, 2))
        assert same(rows, fresh.step(only(env, 2)))
        assert (rows.is_first | (rows.reward != np.round(rows.reward))).all()


@needs("popgym")
def test_popgym_names_are_short_or_full_ids():
    short, whole = (make(f"popgym:{name}") for name in ("RepeatPreviousEasy", "popgym-RepeatPreviousEasy-v0"))
    assert short.spaces == whole.spaces == ((ObsSpec("state", (), 4),), (ActionSpec("discrete", 4),))
    assert same(walk(short), walk(whole))


@needs("memory_maze")
def test_memory_maze_shows_the_colour_to_look_for_and_ends_by_its_time_limit():
    env = make("memory-maze:9x9", num_envs=1)
    rows = env.reset()
    border = rows.obs["image"][0, 0]
    assert (border == border[0]).all()
    single: Any = make_single(EnvConfig(id="memory-maze:9x9"))
    single.reset(seed=0)
    single._env.env.env.env.env._time_limit = 1.0  # seconds, four steps
    assert [single.step(0)[2:4] for _ in range(4)][3] == (False, True)


@needs("mujoco")
def test_mujoco_renders_each_copy_after_others_are_closed():
    kept, closed = (make("gym:InvertedPendulum-v5", num_envs=1, obs="pixels") for _ in range(2))
    first = kept.reset()
    closed.reset()
    closed.close()
    assert same(kept.reset(), first)


@needs("Box2D")
def test_box2d_car_racing_has_its_own_image():
    env = make("gym:CarRacing-v3", num_envs=1)
    assert env.spaces == ((IMAGE,), (ActionSpec("continuous", 3),))
    assert gymnasium.spec("CarRacing-v3").max_episode_steps == 1000
