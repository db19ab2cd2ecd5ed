"""Pictures of pygame: the same numbers as Gymnasium reads, and pygame is restored afterwards."""

import gymnasium
import numpy as np
import pytest

from dreamerjax.config import EnvConfig
from dreamerjax.envs import make_env
from dreamerjax.envs.pygame_frames import BlockFrames

pygame = pytest.importorskip("pygame")


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"])
def test_all_pixels_are_those_that_gymnasium_reads(monkeypatch, name):
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
def test_surfaces_of_both_depths_are_read(depth):
    class Drawn(gymnasium.Env):
        def render(self):
            surface = pygame.Surface((6, 4), depth=depth)
            surface.fill((250, 130, 60))
            return np.array(pygame.surfarray.pixels3d(surface))

    np.testing.assert_array_equal(BlockFrames(Drawn()).render(), Drawn().render())


def test_environments_rendered_by_pygame_have_the_wrapper():
    env = make_env(EnvConfig(id="gym:CartPole-v1", obs="pixels"), num_envs=1, seed=0)
    layers = [env._envs[0]]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    assert any(isinstance(layer, BlockFrames) for layer in layers)
