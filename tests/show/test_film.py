"""Films of an agent: a greedy episode and its dreams, as files that can be played."""

import io
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import jax
import numpy as np
import pytest
from PIL import Image

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.config import Config, EnvConfig, ImageConfig
from dreamerjax.host.envs import make_env
from dreamerjax.host.load import LoadedAgent
from dreamerjax.host.metrics import MetricsWriter
from dreamerjax.show import dreams
from dreamerjax.show.dreams import DreamBesideTruth, dream_beside_truth, dream_frames, scene_frames
from dreamerjax.show.film import film_run
from dreamerjax.show.scene import Scene
from dreamerjax.show.video import as_gif, enlarged, write_mp4
from tests.tiny import MODEL


def size_and_frames(file: Path) -> tuple[int, int, int]:
    """Width, height and number of frames of a film, as ffmpeg reads it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(file), "-f", "null", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    size = re.search(r"Video: h264.* (\d+)x(\d+)", told)
    assert size
    return int(size[1]), int(size[2]), int(re.findall(r"frame=\s*(\d+)", told)[-1])


def gif_size_and_frames(gif: bytes) -> tuple[int, int, int]:
    picture = Image.open(io.BytesIO(gif))
    return *picture.size, getattr(picture, "n_frames", 1)


def untrained(run_dir: Path, env: EnvConfig) -> LoadedAgent:
    config = Config(env=env)
    vector_env = make_env(env, copies=1, seed=0)
    agent = build_agent(config.agent.__class__(model=MODEL), vector_env.spaces)
    vector_env.close()
    state = jax.jit(lambda key: init_train_state(agent, key))(jax.random.PRNGKey(0))
    return LoadedAgent(run_dir, config, agent, state, 1234, ())


def test_episodes_of_any_length_are_dreamed_by_one_program(tmp_path):
    loaded = untrained(tmp_path, EnvConfig(id="gym:CartPole-v1"))
    seen = [dream_beside_truth(loaded, context=4, dreams=2, seed=seed) for seed in range(4)]
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
def test_what_there_is_to_see_is_filmed(tmp_path, obs, names, size):
    env = EnvConfig(id="gym:CartPole-v1", obs=obs, image=ImageConfig(height=32, width=48))
    films = film_run(untrained(tmp_path, env))
    assert [film.name for film in films] == names
    assert all(film.file.is_file() and film.file.parent == tmp_path / "videos" for film in films)
    assert all(film.file.name.startswith("0000001234_") for film in films)
    by_name = {film.name: film for film in films}
    *shape, frames = size_and_frames(by_name["episode"].file)
    assert tuple(shape) == size
    assert 8 <= frames <= 60  # an untrained agent drops the pole soon
    if "dream_image" in by_name:
        # Three pictures of 48 x 32 and gaps, eight times as large.
        width, height, frames = size_and_frames(by_name["dream_image"].file)
        assert (width, height) == (8 * (3 * 48 + 2), 8 * (32 + 2))
        assert gif_size_and_frames(by_name["dream_image"].gif)[2] == frames
    if "dream_scene" in by_name:
        # Two pictures of 600 x 400, a gap and a bar; half as large as a GIF.
        width, height, frames = size_and_frames(by_name["dream_scene"].file)
        assert (width, height) == (2 * 600 + 18, 400 + 16)
        assert gif_size_and_frames(by_name["dream_scene"].gif)[:2] == (width // 2, height // 2)
    assert (by_name.get("dream") is None) == (obs == "pixels")


def test_an_environment_that_shows_nothing_gives_only_the_plot(tmp_path):
    env = EnvConfig(id="tests.host.test_envs:Scripted")  # it cannot be rendered, and its episodes never end
    assert [film.name for film in film_run(untrained(tmp_path, env))] == ["dream"]


def test_a_dream_beside_the_truth_and_the_error_with_a_bar_that_tells_when_it_dreams():
    true = np.zeros((4, 48, 32, 1), np.uint8)
    dreamed = np.zeros((4, 2, 48, 32, 1), np.uint8)
    true[:, :, :16], dreamed[:, 0, :, 16:] = 200, 50
    frames = dream_frames(DreamBesideTruth({"image": true}, {"image": dreamed}, context=3), "image")
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
def test_a_dreamed_state_is_drawn_by_the_environment_beside_the_truth(env_id):
    config = EnvConfig(id=f"gym:{env_id}")
    env = make_env(config, copies=1, seed=0)
    first = env.reset().obs["state"][0]
    second = env.step(env.random_action(np.random.default_rng(0))).obs["state"][0]
    scene = Scene(config, env.spaces)
    true, dreamed = np.stack([first, first]), np.stack([first, second + 0.3])[:, None]
    frames = scene_frames(DreamBesideTruth({"state": true}, {"state": dreamed}, context=1), scene)
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
def test_frames_of_any_size_become_films(tmp_path, shape):
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


def test_a_film_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(OSError, match=r"nowhere/a.mp4 could not be written"):
        write_mp4(frames, tmp_path / "nowhere" / "a.mp4", frames_per_second=10)


def test_tensorboard_gets_the_gif(tmp_path):
    gif = as_gif(np.random.default_rng(0).integers(256, size=(3, 20, 30, 3), dtype=np.uint8), frames_per_second=10)
    with MetricsWriter(tmp_path / "metrics.jsonl", tmp_path) as writer:
        writer.write_gif(7, "video/episode", gif)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert gif in content
    assert b"video/episode" in content
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
