"""Films of an agent: a greedy episode and dreams, as files that can be played."""

import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import imageio_ffmpeg
import jax
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from PIL import Image

from dreamerjax import cli
from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.config import Config, EnvConfig, ImageConfig
from dreamerjax.envs import make_env
from dreamerjax.monitoring.metrics import MetricsWriter
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.training.reporter import Films
from dreamerjax.viz import dreams
from dreamerjax.viz.dreams import DreamComparison, compare_dream_with_episode, dream_frames, state_frames
from dreamerjax.viz.film import film_run, filmed
from dreamerjax.viz.renderer import ObservationRenderer
from dreamerjax.viz.video import as_gif, enlarged, first_frame, write_mp4
from tests.test_cli import TINY
from tests.tiny import MODEL


def size_and_frames(file: Path) -> tuple[int, int, int]:
    """Width, height and number of frames of a film, read with ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(file), "-f", "null", "-"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    size = re.search(r"Video: h264.* (\d+)x(\d+)", printed)
    assert size
    return int(size[1]), int(size[2]), int(re.findall(r"frame=\s*(\d+)", printed)[-1])


def gif_size_and_frames(gif: bytes) -> tuple[int, int, int]:
    picture = Image.open(io.BytesIO(gif))
    return *picture.size, getattr(picture, "n_frames", 1)


def untrained(run_dir: Path, env: EnvConfig) -> LoadedAgent:
    config = Config(env=env)
    vector_env = make_env(env, num_envs=1, seed=0)
    agent = build_agent(config.agent.__class__(model=MODEL), vector_env.spaces)
    vector_env.close()
    state = jax.jit(lambda key: init_train_state(agent, key))(jax.random.PRNGKey(0))
    return LoadedAgent(run_dir, config, agent, state, 1234, ())


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


def test_a_film_that_cannot_be_written_gives_an_error_with_the_file(tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(OSError, match=r"nowhere/a.mp4 could not be written"):
        write_mp4(frames, tmp_path / "nowhere" / "a.mp4", frames_per_second=10)


# Errors


class Odd(gymnasium.Env):
    """Observes a small image and two numbers for ten steps, and renders `pictures`."""

    observation_space = Dict({"image": Box(0, 255, (16, 16, 3), np.uint8), "state": Box(-1, 1, (2,), np.float32)})
    action_space = Discrete(2)
    render_mode = "rgb_array"
    pictures: ClassVar[list[Any]] = []  # by step; the last one repeats
    fault: ClassVar[BaseException | None] = None  # raised at step 5

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.seen(), {}

    def step(self, action: int) -> Any:
        self.time += 1
        if self.fault is not None and self.time == 5:
            raise self.fault
        return self.seen(), 1.0, self.time == 10, False, {}

    def seen(self) -> dict[str, np.ndarray]:
        return {"image": np.full((16, 16, 3), 20 * self.time, np.uint8), "state": np.zeros(2, np.float32)}

    def render(self) -> Any:
        picture = self.pictures[min(self.time, len(self.pictures) - 1)]
        if isinstance(picture, BaseException):
            raise picture
        return picture


RED = np.full((64, 96, 3), (200, 40, 40), np.uint8)
SMALL = ImageConfig(height=16, width=16)


@pytest.fixture(scope="module")
def odd() -> LoadedAgent:
    return untrained(Path(), EnvConfig(id=f"{__name__}:Odd", image=SMALL))


@pytest.fixture
def film_odd(odd: LoadedAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Films]:
    def film(*pictures: Any, mode: str = "rgb_array", fault: BaseException | None = None) -> Films:
        for name, value in {"pictures": list(pictures or [RED]), "render_mode": mode, "fault": fault}.items():
            monkeypatch.setattr(Odd, name, value)
        films = film_run(odd._replace(run_dir=tmp_path))
        assert all(film.file.stat().st_size for film in films.made)
        assert {film.file for film in films.made} == set((tmp_path / "videos").iterdir()), "no partial file is left"
        return films

    return film


def names_of(films: Films) -> list[str]:
    return [film.name for film in films.made]


def colour_of(file: Path) -> np.ndarray:
    """The mean colour in the middle of the first frame."""
    picture = np.asarray(Image.open(io.BytesIO(first_frame(file))).convert("RGB"))
    height, width, _ = picture.shape
    return picture[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].mean((0, 1))


GREY = np.full((64, 96), 90, np.uint8)
UNIT = RED / np.float32(255)


@pytest.mark.parametrize(
    ("pictures", "mode", "colour"),
    [
        ([GREY], "rgb_array", (90, 90, 90)),
        ([GREY[..., None]], "rgb_array", (90, 90, 90)),
        ([np.concatenate([RED, RED[..., :1]], axis=-1)], "rgb_array", (200, 40, 40)),
        ([UNIT], "rgb_array", (200, 40, 40)),
        ([RED.astype(np.float64)], "rgb_array", (200, 40, 40)),
        ([[0 * RED, RED]], "rgb_array_list", (200, 40, 40)),
        ([np.moveaxis(RED, -1, 0)], "rgb_array", (200, 40, 40)),
        ([RED.tolist()], "rgb_array", (200, 40, 40)),
        ([RED, RED[:32], RED[:, :30], np.tile(RED, (3, 2, 1)), GREY[:7]], "rgb_array", (200, 40, 40)),
    ],
    ids=["grey", "one channel", "alpha", "floats", "floats to 255", "list", "channels first", "nested lists", "sizes"],
)
def test_unusual_frames_give_a_correct_film(film_odd, pictures, mode, colour):
    films = film_odd(*pictures, mode=mode)
    assert films.missing == []
    assert names_of(films) == ["episode", "dream_image", "dream"]
    assert size_and_frames(films.made[0].file) == (96 * 4, 64 * 4, 11)
    assert gif_size_and_frames(films.made[0].gif)[:2] == (96 * 4, 64 * 4)
    np.testing.assert_allclose(colour_of(films.made[0].file), colour, atol=8)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        (
            [RuntimeError("Cannot connect to display None")],
            ":Odd: `render` raised RuntimeError: Cannot connect to displ",
        ),
        ([RED, RED, ValueError("first line\nsecond line")], ":Odd: `render` raised ValueError: first line"),
        ([SystemExit()], ":Odd: `render` raised SystemExit:"),
        ([None], ":Odd: `render` returned None, expected a picture"),
        ([RED, RED, None], ":Odd: `render` returned None, expected a picture"),
        ([[]], ":Odd: `render` returned an empty list"),
        ([np.full((8, 8, 3), np.nan)], ":Odd: `render` returned a picture of numbers from nan to nan"),
    ],
    ids=["raises", "raises later", "exits", "nothing", "nothing later", "empty list", "NaN"],
)
def test_a_render_error_is_reported_and_the_dreams_are_filmed(film_odd, pictures, expected):
    films = film_odd(*pictures)
    (why,) = films.missing
    assert expected in why
    assert "second" not in why
    assert names_of(films) == ["dream_image", "dream"]


def test_an_environment_error_is_reported_once_without_traceback(film_odd):
    films = film_odd(fault=RuntimeError("the arm is stuck"))
    (why,) = films.missing
    assert why == f"{__name__}:Odd: it raised RuntimeError: the arm is stuck (copy 0, step 5)."
    assert films.made == []


def test_a_file_in_place_of_the_folder_is_reported(odd, tmp_path):
    (tmp_path / "videos").touch()
    films = film_run(odd._replace(run_dir=tmp_path))
    assert films.made == []
    assert "videos" in films.missing[0]


STUBS = {
    "no such codec": (
        "cat >/dev/null; echo 'Unknown encoder: libx264' >&2; exit 8",
        "code 8: Unknown encoder: libx264",
    ),
    "no such codec, real ffmpeg": (
        f"exec {imageio_ffmpeg.get_ffmpeg_exe()} ${{@//libx264/libnothing}}",
        "Unknown encoder 'libnothing'",
    ),
    "full disk": (
        "out=${@: -1:1}; echo half >${out#file:}; echo 'No space left on device' >&2; exit 1",
        "No space left on device",
    ),
    "says much": ("yes error | head -c 300000 >&2; exit 1", "ffmpeg ended with code 1: error error"),
    "ends at once": ("exit 3", "ffmpeg ended with code 3"),
    "writes nothing": ("cat >/dev/null", "ffmpeg ended with code 0"),
    "is killed": ("kill -9 $$", "ffmpeg ended with signal 9 (Killed)"),
}


@pytest.mark.parametrize(("script", "expected"), STUBS.values(), ids=STUBS)
def test_an_ffmpeg_failure_is_reported_once_and_the_plot_is_made(film_odd, tmp_path, monkeypatch, script, expected):
    stub = tmp_path / "stub.sh"
    stub.write_text(f"#!/bin/bash\n{script}\n")
    stub.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(stub))
    films = film_odd()
    (why,) = films.missing
    assert expected in why
    assert "\n" not in why
    assert names_of(films) == ["dream"]


def test_a_missing_ffmpeg_is_reported_once_and_the_plot_is_made(film_odd, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    films = film_odd()
    (why,) = films.missing
    assert why.endswith("/nowhere/ffmpeg cannot be started: No such file or directory")
    assert names_of(films) == ["dream"]
    assert first_frame(films.made[0].file) == b""
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    monkeypatch.setattr("imageio_ffmpeg._utils._get_ffmpeg_exe", lambda: None)
    films = film_odd()
    (why,) = films.missing
    assert "No ffmpeg exe could be found" in why
    assert first_frame(films.made[0].file) == b""


def test_a_film_above_the_file_size_limit_is_reported(film_odd):
    resource = pytest.importorskip("resource", reason="there is no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        films = film_odd(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert films.made == []
    assert len(films.missing) == 2, "one for the films, one for the plot"


class Names(Odd):
    """Images and vectors with names that are invalid as file names."""

    NAMES: ClassVar = [
        "a/b",
        "../x",
        "",
        " ",
        ".",
        "ü",
        "dream",
        "a.b",
        "n" * 300,
        "<b>",
        "con:aux?*",
        "$\\frac$",
        "\ud800\0",
    ]
    observation_space = Dict(
        {name: Box(0, 255, (16, 16, 3), np.uint8) for name in NAMES}
        | {f"v{name}": Box(-1, 1, (1,), np.float32) for name in NAMES}
    )

    def seen(self) -> dict[str, np.ndarray]:
        return {name: np.zeros(box.shape or (), box.dtype) for name, box in self.observation_space.items()}


def test_observations_of_any_name_are_filmed(tmp_path, monkeypatch):
    monkeypatch.setattr(Odd, "pictures", [RED])
    films = film_run(untrained(tmp_path, EnvConfig(id=f"{__name__}:Names", image=SMALL)))
    assert films.missing == []
    assert len(films.made) == len(Names.NAMES) + 2
    files = sorted((tmp_path / "videos").iterdir())
    assert files == sorted(film.file for film in films.made), "no file is in another folder"
    seen = {one.name for one in filmed(tmp_path)}
    assert {f"dream_{name}" for name in Names.NAMES if name and name.isprintable() and len(name) < 99} <= seen
    assert {"episode", "dream", "dream_image", "dream_\\ud800\\0"} <= seen


class Numbers(Odd):
    """An environment without image observations."""

    observation_space = Odd.observation_space["state"]

    def seen(self) -> Any:
        return super().seen()["state"]


def test_training_continues_without_films_and_reports_the_reason_once(tmp_path, monkeypatch, capsys):
    def train(env_steps: int) -> list[str]:
        assert cli.main([*arguments, "--env-steps", str(env_steps)]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("No film")]

    def fail(loaded: LoadedAgent, *, lent: Any = None) -> Films:
        raise ZeroDivisionError(f"an unexpected error at step {loaded.env_steps}")

    monkeypatch.setattr(Odd, "pictures", [RuntimeError("no display")])
    (tmp_path / "tiny.yaml").write_text(TINY)
    run = tmp_path / "run"
    arguments = ["--env", f"{__name__}:Numbers", "--backend", "cpu", "--config", str(tmp_path / "tiny.yaml")]
    arguments += ["--log.video-every", "10", "--run-dir", str(run)]
    assert train(40) == [f"No film: {__name__}:Numbers: `render` raised RuntimeError: no display"]
    assert len({one.env_steps for one in filmed(run)}) >= 3, "dreams are still plotted"
    with monkeypatch.context() as patch:
        patch.setattr("dreamerjax.viz.film.film_run", fail)
        (line,) = train(70)
        assert line.startswith("No film: ZeroDivisionError: an unexpected error at step ")
    monkeypatch.setattr(Odd, "pictures", [RED])
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    assert cli.main(["show", "--run-dir", str(run)]) == 0
    shown = capsys.readouterr()
    assert "_dream.png" in shown.out
    assert shown.err.count("No film: ") == 1
    assert "/nowhere/ffmpeg cannot be started" in shown.err


def test_tensorboard_receives_the_gif(tmp_path):
    gif = as_gif(np.random.default_rng(0).integers(256, size=(3, 20, 30, 3), dtype=np.uint8), frames_per_second=10)
    with MetricsWriter(tmp_path / "metrics.jsonl", tmp_path) as writer:
        writer.write_gif(7, "video/episode", gif)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert gif in content
    assert b"video/episode" in content
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
