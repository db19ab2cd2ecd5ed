"""Films of unusual environments: every picture and name is filmed, every error is reported once."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from PIL import Image

from dreamerjax import cli
from dreamerjax.config import EnvConfig, ImageConfig
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.training.reporter import Films
from dreamerjax.viz.film import film_run, filmed
from dreamerjax.viz.video import first_frame, write_mp4
from tests.cli.commands import TINY
from tests.viz.films import gif_size_and_frames, size_and_frames, untrained


def test_a_film_that_cannot_be_written_gives_an_error_with_the_file(tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(OSError, match=r"nowhere/a.mp4 could not be written"):
        write_mp4(frames, tmp_path / "nowhere" / "a.mp4", frames_per_second=10)


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


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from dreamerjax.viz.video import write_mp4

signals = []
signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))

def frames():
    for index in range(20):
        if index == 10:
            os.killpg(os.getpgid(0), signal.SIGINT)
        yield np.full((64, 64, 3), 10 * index, np.uint8)

write_mp4(frames(), Path(sys.argv[1]), frames_per_second=10)
print(len(signals))
"""


def test_a_film_is_finished_after_ctrl_c_in_the_terminal(tmp_path):
    file = tmp_path / "a.mp4"
    command = [sys.executable, "-c", INTERRUPTED, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert (done.stdout.split(), done.returncode) == (["1"], 0), done.stderr
    assert size_and_frames(file)[2] == 20
