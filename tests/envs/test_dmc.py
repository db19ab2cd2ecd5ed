"""DeepMind Control: time limits, names, cameras and repeated actions."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import make_single
from tests.envs.suites import THIRD_PARTY, make, needs

pytestmark = THIRD_PARTY

ROOT = Path(__file__).parents[2]


@needs("dm_control")
def test_dmc_ends_by_its_time_limit_and_repeats_actions():
    """1000 frames are 500 steps; compares rows with dm_control, stepped by hand with each action twice."""
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


@needs("dm_control")
def test_dmc_tasks_that_end_are_terminal():
    env = make("dmc:dog-walk", num_envs=1)
    single: Any = make_single(EnvConfig(id="dmc:dog-walk"))
    single.reset(seed=0)
    over = single._env.step(single.action_space.sample())._replace(discount=0.0)
    over = over._replace(step_type=over.step_type.LAST)
    single._env.step = lambda action: over
    assert single.step(None)[2:4] == (True, False)
    env.close()


@needs("dm_control")
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


@needs("dm_control")
@pytest.mark.parametrize(("task", "camera"), [("walker-walk", 0), ("quadruped-walk", 2)])
def test_dmc_is_rendered_at_its_size_by_the_published_camera(task, camera):
    env = make(f"dmc:{task}", num_envs=1, obs="pixels", image=ImageConfig(height=32, width=48))
    single: Any = make_single(EnvConfig(id=f"dmc:{task}", obs="pixels"))
    single.reset(seed=int(np.random.SeedSequence(0).generate_state(1)[0]))
    expected = single._env.physics.render(32, 48, camera_id=camera)
    np.testing.assert_array_equal(env.reset().obs["image"][0], expected)
    film = env.render()
    assert film is not None
    assert film.shape == (240, 320, 3)


@needs("dm_control")
def test_dmc_renders_once_for_repeated_actions(monkeypatch):
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


@needs("dm_control")
def test_dmc_names_missing_packages_for_rendering():
    program = (
        "from dreamerjax.config import EnvConfig; from dreamerjax.envs import make_env;"
        "env = make_env(EnvConfig(id='dmc:cartpole-swingup'), num_envs=1, seed=0); env.reset(); print(env.render());"
        "make_env(EnvConfig(id='dmc:cartpole-swingup', obs='pixels'), num_envs=1, seed=0)"
    )
    environment = {**os.environ, "MUJOCO_GL": "disable"}
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.stdout == "None\n"
    assert "env.obs is pixels, but MuJoCo can render with neither EGL nor OSMesa here." in ran.stderr
    assert "apt install libegl1 libgl1-mesa-dri" in ran.stderr
