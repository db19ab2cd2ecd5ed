"""Films of an agent: a greedy episode and dreams, as files that can be played."""

import numpy as np
import pytest

from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.envs import make_env
from dreamerjax.monitoring.metrics import MetricsWriter
from dreamerjax.viz import dreams
from dreamerjax.viz.dreams import DreamComparison, compare_dream_with_episode, dream_frames, state_frames
from dreamerjax.viz.film import film_run
from dreamerjax.viz.renderer import ObservationRenderer
from dreamerjax.viz.video import as_gif, enlarged, write_mp4
from tests.viz.films import gif_size_and_frames, size_and_frames, untrained


def test_dreams_of_all_episode_lengths_use_one_compiled_program(tmp_path):
    loaded = untrained(tmp_path, EnvConfig(id="gym:CartPole-v1"))
    seen = [compare_dream_with_episode(loaded, context=4, dreams=2, seed=seed) for seed in range(4)]
    assert len({len(one) for one in seen}) > 1
    for one in seen:
        assert one.dreamed["state"].shape == (len(one), 2, 4)
    assert dreams._jit_open_loop(loaded.agent, 4)._cache_size() == 1


@pytest.mark.parametrize(
    ("obs", "names", "size"),
    [
        ("state", ["episode", "dream_scene", "dream"], (600, 400)),
        ("pixels", ["episode", "dream_image"], (600, 400)),
        ("both", ["episode", "dream_image", "dream"], (600, 400)),
    ],
)
def test_films_by_kind_of_observation(tmp_path, obs, names, size):
    env = EnvConfig(id="gym:CartPole-v1", obs=obs, image=ImageConfig(height=32, width=48))
    films, missing = film_run(untrained(tmp_path, env))
    assert missing == []
    assert [film.name for film in films] == names
    assert all(film.file.is_file() and film.file.parent == tmp_path / "videos" for film in films)
    assert all(film.file.name.startswith("0000001234_") for film in films)
    by_name = {film.name: film for film in films}
    *shape, frames = size_and_frames(by_name["episode"].file)
    assert tuple(shape) == size
    assert 8 <= frames <= 60  # the episodes of an untrained agent are short
    if "dream_image" in by_name:
        # Three images of 48 x 32 and gaps, enlarged by 8.
        width, height, frames = size_and_frames(by_name["dream_image"].file)
        assert (width, height) == (8 * (3 * 48 + 2), 8 * (32 + 2))
        assert gif_size_and_frames(by_name["dream_image"].gif)[2] == frames
    if "dream_scene" in by_name:
        # Two images of 600 x 400, a gap and a bar; the GIF has half the size.
        width, height, frames = size_and_frames(by_name["dream_scene"].file)
        assert (width, height) == (2 * 600 + 18, 400 + 16)
        assert gif_size_and_frames(by_name["dream_scene"].gif)[:2] == (width // 2, height // 2)
    assert (by_name.get("dream") is None) == (obs == "pixels")


def test_an_environment_without_rendering_gives_only_the_plot(tmp_path):
    env = EnvConfig(id="tests.envs.scripted:Scripted")  # it cannot be rendered, and its episodes have no end
    films, missing = film_run(untrained(tmp_path, env))
    assert [film.name for film in films] == ["dream"]
    assert missing == []


def test_films_use_lent_environments(tmp_path, monkeypatch):
    config = EnvConfig(id="gym:CartPole-v1", obs="both", image=ImageConfig(height=32, width=48))
    loaded, lent = untrained(tmp_path, config), make_env(config, num_envs=3, seed=0)
    monkeypatch.setattr("dreamerjax.envs.single_env.make_env", lambda *given, **options: 1 / 0)
    films, missing = film_run(loaded, lent=lent)
    assert ([film.name for film in films], missing) == (["episode", "dream_image", "dream"], [])
    assert lent.reset().is_first.all(), "they are not closed"


def test_frames_show_truth_dream_and_error_with_a_bar_that_marks_the_dream():
    true = np.zeros((4, 48, 32, 1), np.uint8)
    dreamed = np.zeros((4, 2, 48, 32, 1), np.uint8)
    true[:, :, :16], dreamed[:, 0, :, 16:] = 200, 50
    frames = dream_frames(DreamComparison({"image": true}, {"image": dreamed}, context=3), "image")
    assert (frames.shape, frames.dtype) == ((4, 50, 3 * 32 + 2, 1), np.uint8)
    bar, pictures = frames[:, :2, ..., 0], frames[:, 2:, ..., 0]
    np.testing.assert_array_equal(pictures[:, :, :32], true[..., 0])
    np.testing.assert_array_equal(pictures[:, :, 33:65], dreamed[:, 0, ..., 0])
    np.testing.assert_array_equal(pictures[:, :, 66:82], 200)
    np.testing.assert_array_equal(pictures[:, :, 82:], 50)
    assert (bar[:3] == bar[0, 0, 0]).all()
    assert (bar[3, :, 33:65] > bar[0, 0, 0]).all()
    assert (bar[3, :, :33] == bar[0, 0, 0]).all()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"])
def test_dreamed_states_are_rendered_by_the_environment(env_id):
    config = EnvConfig(id=f"gym:{env_id}")
    env = make_env(config, num_envs=1, seed=0)
    first = env.reset().obs["state"][0]
    second = env.step(env.random_action(np.random.default_rng(0))).obs["state"][0]
    scene = ObservationRenderer(config, env.spaces)
    true, dreamed = np.stack([first, first]), np.stack([first, second + 0.3])[:, None]
    frames = state_frames(DreamComparison({"state": true}, {"state": dreamed}, context=1), scene)
    pictures = [scene.draw({"state": state}) for state in (first, second + 0.3)]
    scene.close()
    env.close()
    height, width, _ = pictures[0].shape
    gap, bar = width // 32, height // 24
    assert frames.shape == (2, bar + height, 2 * width + gap, 3)
    np.testing.assert_array_equal(frames[1, bar:, :width], pictures[0])
    np.testing.assert_array_equal(frames[0, bar:, width + gap :], pictures[0])
    np.testing.assert_array_equal(frames[1, bar:, width + gap :], pictures[1])
    assert (frames[1, :bar, width + gap :] > frames[0, :bar, width + gap :]).all()
    assert (frames[1, :bar, :width] == frames[0, :bar, :width]).all()


@pytest.mark.parametrize("shape", [(5, 16, 16, 1), (5, 33, 47, 3), (3, 400, 600, 3), (2, 64, 64, 4)], ids=str)
def test_films_from_frames_of_any_size(tmp_path, shape):
    frames = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    large = enlarged(frames)
    factor = large.shape[1] // shape[1]
    assert large.shape == (shape[0], factor * shape[1], factor * shape[2], 3)
    assert min(large.shape[1:3]) >= 256 or factor > 1
    np.testing.assert_array_equal(large[:, ::factor, ::factor, 0], frames[..., 0])
    write_mp4(frames, tmp_path / "a.mp4", frames_per_second=10)
    width, height, count = size_and_frames(tmp_path / "a.mp4")
    assert (width, height) == (large.shape[2] + large.shape[2] % 2, large.shape[1] + large.shape[1] % 2)
    assert count == shape[0]
    assert gif_size_and_frames(as_gif(large, frames_per_second=10)) == (large.shape[2], large.shape[1], shape[0])


def test_tensorboard_receives_the_gif(tmp_path):
    gif = as_gif(np.random.default_rng(0).integers(256, size=(3, 20, 30, 3), dtype=np.uint8), frames_per_second=10)
    with MetricsWriter(tmp_path / "metrics.jsonl", tmp_path) as writer:
        writer.write_gif(7, "video/episode", gif)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert gif in content
    assert b"video/episode" in content
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
