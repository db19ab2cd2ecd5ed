"""Films of an agent: a greedy episode, and dreams compared with a real episode. Training makes them regularly."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dreamerjax.agent.policy import initial_policy_state
from dreamerjax.envs import VectorEnv
from dreamerjax.envs.single_env import single_env
from dreamerjax.replay.file_names import file_name, text_of
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runtime.error_text import one_line, without_numbers
from dreamerjax.training.evaluation import greedy_policy
from dreamerjax.training.reporter import Film, Films
from dreamerjax.viz.dreams import DreamComparison, compare_dream_with_episode, dream_frames, plot_dream, state_frames
from dreamerjax.viz.renderer import ObservationRenderer
from dreamerjax.viz.video import as_gif, atomic_write, enlarged, write_mp4

MAX_FRAMES = 1000  # of an episode
EPISODE_SPEED, DREAM_SPEED = 30.0, 10.0  # frames a second
GIF_FRAMES = 100  # maximum; TensorBoard keeps GIFs in memory
STATE_DREAM = "dream_scene"  # name of the film of dreamed states


class Filmed(NamedTuple):
    """A film or plot that `film_run` wrote earlier."""

    env_steps: int  # of the agent that it shows
    name: str  # such as "episode"
    file: Path


def filmed(run_dir: Path) -> list[Filmed]:
    """The films and plots in a run folder, oldest first."""
    found = []
    for file in sorted(RunFolder(run_dir).videos.glob("*_*")):
        steps, _, name = file.stem.partition("_")
        if steps.isdigit() and file.suffix in (".mp4", ".png") and file.stat().st_size:
            found.append(Filmed(int(steps), text_of(name), file))
    return sorted(found, key=lambda one: one.env_steps)


def film_run(loaded: LoadedAgent, *, seed: int = 0, lent: VectorEnv | None = None) -> Films:
    """Writes the films and plots of an agent into `videos` of its run folder.

    The films are independent: an error in one does not affect the others.

    Args:
        loaded: the agent.
        seed: of the episode and the dreams.
        lent: environments to play in; None: creates them.

    Returns:
        The films: an episode (if the environment renders or observes images), and dreams compared with a real episode:
        a film of images, or of states that the environment can render, and a plot of vectors. And the reasons why films
        are missing.
    """
    writer = _FilmWriter(RunFolder(loaded.run_dir).videos, loaded.env_steps)
    with writer.errors_kept():
        writer.folder.mkdir(exist_ok=True)
    writer.film("episode", lambda: film_episode(loaded, seed=seed, lent=lent), EPISODE_SPEED)
    seen: DreamComparison | None = None
    with writer.errors_kept():
        seen = compare_dream_with_episode(loaded, seed=seed, lent=lent)
    if seen is None:
        return writer.films
    specs = loaded.agent.spaces.obs
    for spec in specs:
        if spec.is_image:
            writer.film(f"dream_{spec.name}", functools.partial(dream_frames, seen, spec.name), DREAM_SPEED)
    if not any(spec.is_image for spec in specs):
        writer.film(STATE_DREAM, lambda: _frames_of_states(loaded, seen), DREAM_SPEED)
    if any(spec.is_vector for spec in specs):
        writer.plot("dream", lambda file: plot_dream(seen, file))
    return writer.films


class _FilmWriter:
    """Writes the films and plots of an agent; an error in one does not affect the others."""

    def __init__(self, folder: Path, env_steps: int) -> None:
        self.folder, self.films = folder, Films([], [])
        self._env_steps, self._reasons = env_steps, set[str]()

    @contextlib.contextmanager
    def errors_kept(self, file: str = "") -> Iterator[None]:
        """Turns an exception into a reason why films are missing; the same reason is kept once for all files."""
        try:
            yield
        except Exception as error:  # from the environment, ffmpeg, the disk or matplotlib
            why = one_line(error)
            reason = without_numbers(why.replace(file, "") if file else why)
            if reason not in self._reasons:
                self._reasons.add(reason)
                self.films.missing.append(why)

    def film(self, name: str, frames: Callable[[], Iterable[np.ndarray]], frames_per_second: float) -> None:
        """Writes a film and a GIF of smaller frames; nothing if there are no frames."""
        file = self._file(name, ".mp4")
        small: list[np.ndarray] = []

        def kept() -> Iterator[np.ndarray]:
            for frame in frames():
                small.append(_small(frame))
                yield frame

        with self.errors_kept(file.name):
            if write_mp4(kept(), file, frames_per_second=frames_per_second):
                every = -(-len(small) // GIF_FRAMES)
                gif = as_gif(small[::every], frames_per_second=frames_per_second / every)
                self.films.made.append(Film(name, file, gif))

    def plot(self, name: str, draw: Callable[[Path], None]) -> None:
        """Writes a plot."""
        file = self._file(name, ".png")
        with self.errors_kept(file.name):
            with atomic_write(file) as unfinished:
                draw(unfinished)
            self.films.made.append(Film(name, file))

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{self._env_steps:010d}_{file_name(name)}{suffix}"


def film_episode(loaded: LoadedAgent, *, seed: int, lent: VectorEnv | None = None) -> Iterator[np.ndarray]:
    """Frames, each [height, width, channels], of one greedy episode; none without rendering and images."""
    agent, params = loaded.agent, loaded.state.params
    image = next((spec.name for spec in agent.spaces.obs if spec.is_image), None)
    with single_env(loaded.config.env, seed=seed, lent=lent) as env:
        rows = env.reset(seed=seed)
        state, key = initial_policy_state(agent, 1), jax.random.PRNGKey(seed)
        policy = greedy_policy(agent)
        for _ in range(min(MAX_FRAMES, loaded.config.eval.max_episode_steps)):
            frame = env.render()
            if frame is None and image is not None:
                frame = rows.obs[image][0]
            if frame is None:
                return
            yield frame
            if rows.is_last.any():
                return
            state, action, key = policy(params, state, rows.obs, rows.is_first, key)
            rows = env.step(np.asarray(action))


def _frames_of_states(loaded: LoadedAgent, seen: DreamComparison) -> Iterable[np.ndarray]:
    """Frames of real and dreamed states; none if the environment cannot render a given state."""
    renderer = ObservationRenderer(loaded.config.env, loaded.agent.spaces)
    try:
        return state_frames(seen, renderer) if renderer.can_draw else ()
    finally:
        renderer.close()


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame [height, width, channels] averaged over square blocks to about 200 pixels high or 800 wide."""
    frame = enlarged(frame[None])[0]
    factor = max(1, frame.shape[0] // 200, frame.shape[1] // 800)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    squares = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return squares.mean((1, 3)).astype(np.uint8)
