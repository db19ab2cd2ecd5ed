"""Pictures that pygame drew: the same numbers as Gymnasium reads, and pygame as it was afterwards."""

import gymnasium
import numpy as np
import pytest

from dreamerjax.config import EnvConfig
from dreamerjax.envs import make_env
from dreamerjax.envs.pygame_frames import BlockFrames

pygame = pytest.importorskip("pygame")


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"])
def test_every_pixel_is_the_one_that_gymnasium_reads(monkeypatch, name):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    before = pygame.surfarray.pixels3d
    plain = gymnasium.make(name, render_mode="rgb_array")
    plain.reset(seed=0)
    plain.action_space.seed(0)
    block = BlockFrames(plain)
    for _ in range(3):
        plain.step(plain.action_space.sample())
        expected, frame = plain.render(), np.asarray(block.render())
        assert (frame.shape, frame.dtype) == (expected.shape, np.uint8)
        np.testing.assert_array_equal(frame, expected)
        later = frame.copy()
        plain.step(plain.action_space.sample())
        block.render()
        np.testing.assert_array_equal(frame, later, "a later picture leaves it as it is")
    assert pygame.surfarray.pixels3d is before


@pytest.mark.parametrize("depth", [24, 32])
def test_surfaces_of_either_kind_are_read(depth):
    class Drawn(gymnasium.Env):
        def render(self):
            surface = pygame.Surface((6, 4), depth=depth)
            surface.fill((250, 130, 60))
            return np.array(pygame.surfarray.pixels3d(surface))

    np.testing.assert_array_equal(BlockFrames(Drawn()).render(), Drawn().render())


def test_environments_that_pygame_draws_are_read_so():
    env = make_env(EnvConfig(id="gym:CartPole-v1", obs="pixels"), num_envs=1, seed=0)
    layers = [env._envs[0]]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    assert any(isinstance(layer, BlockFrames) for layer in layers)
