"""Films of an agent: a greedy episode, and its dream beside the truth. Training makes them now and then."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dreamerjax.agent.policy import initial_policy_state
from dreamerjax.envs import VectorEnv
from dreamerjax.envs.one_copy import one_copy
from dreamerjax.replay.file_names import file_name, text_of
from dreamerjax.runs.load import LoadedAgent
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.runtime.sentence import reason_of, sentence_of
from dreamerjax.training.evaluation import greedy_policy
from dreamerjax.training.reporter import Film, Films
from dreamerjax.viz.dreams import DreamBesideTruth, dream_beside_truth, dream_frames, plot_dream, scene_frames
from dreamerjax.viz.scene import Scene
from dreamerjax.viz.video import as_gif, enlarged, whole, write_mp4

LONGEST = 1000  # steps of an episode that are filmed
EPISODE_SPEED, DREAM_SPEED = 30.0, 10.0  # frames a second
GIF_FRAMES = 100  # at most; for TensorBoard, which keeps them in memory
SCENE = "dream_scene"  # the film of a state's dream


class Filmed(NamedTuple):
    """A film or plot that `film_run` made once."""

    env_steps: int  # of the agent that it shows
    name: str  # such as "episode"
    file: Path


def filmed(run_dir: Path) -> list[Filmed]:
    """The films and plots of a run, oldest first; none if none were made."""
    found = []
    for file in sorted(RunFolder(run_dir).videos.glob("*_*")):
        steps, _, name = file.stem.partition("_")
        if steps.isdigit() and file.suffix in (".mp4", ".png") and file.stat().st_size:
            found.append(Filmed(int(steps), text_of(name), file))
    return sorted(found, key=lambda one: one.env_steps)


def film_run(loaded: LoadedAgent, *, seed: int = 0, lent: VectorEnv | None = None) -> Films:
    """Writes what can be shown of an agent into `videos` of its run folder.

    Each film is made apart from the others: one that fails, for whatever reason, takes none of them along.

    Args:
        loaded: the agent.
        seed: of the episode and the dreams.
        lent: environments to play in; None: some of its own.

    Returns:
        The films: an episode (where the environment draws itself or shows images), and dreams beside the truth, as a
        film of images, or of a state where the environment can draw one, and as a plot of vectors. And why others,
        which there should be, could not be made.
    """
    making = _Making(RunFolder(loaded.run_dir).videos, loaded.env_steps)
    with making.apart():
        making.folder.mkdir(exist_ok=True)
    making.film("episode", lambda: film_episode(loaded, seed=seed, lent=lent), EPISODE_SPEED)
    seen: DreamBesideTruth | None = None
    with making.apart():
        seen = dream_beside_truth(loaded, seed=seed, lent=lent)
    if seen is None:
        return making.films
    specs = loaded.agent.spaces.obs
    for spec in specs:
        if spec.is_image:
            making.film(f"dream_{spec.name}", functools.partial(dream_frames, seen, spec.name), DREAM_SPEED)
    if not any(spec.is_image for spec in specs):
        making.film(SCENE, lambda: _frames_of_states(loaded, seen), DREAM_SPEED)
    if any(spec.is_vector for spec in specs):
        making.plot("dream", lambda file: plot_dream(seen, file))
    return making.films


class _Making:
    """Films and plots of one moment of training, each made apart from the others."""

    def __init__(self, folder: Path, env_steps: int) -> None:
        self.folder, self.films = folder, Films([], [])
        self._env_steps, self._reasons = env_steps, set[str]()

    @contextlib.contextmanager
    def apart(self, file: str = "") -> Iterator[None]:
        """Whatever goes wrong inside is a reason why films are missing, which counts once for all files."""
        try:
            yield
        except Exception as error:  # of the environment, of ffmpeg, of the disk, of matplotlib
            why = sentence_of(error)
            reason = reason_of(why.replace(file, "") if file else why)
            if reason not in self._reasons:
                self._reasons.add(reason)
                self.films.missing.append(why)

    def film(self, name: str, frames: Callable[[], Iterable[np.ndarray]], frames_per_second: float) -> None:
        """Writes a film, and keeps small frames of it for the GIF; nothing if there is no frame."""
        file = self._file(name, ".mp4")
        small: list[np.ndarray] = []

        def kept() -> Iterator[np.ndarray]:
            for frame in frames():
                small.append(_small(frame))
                yield frame

        with self.apart(file.name):
            if write_mp4(kept(), file, frames_per_second=frames_per_second):
                every = -(-len(small) // GIF_FRAMES)
                gif = as_gif(small[::every], frames_per_second=frames_per_second / every)
                self.films.made.append(Film(name, file, gif))

    def plot(self, name: str, draw: Callable[[Path], None]) -> None:
        """Writes a plot."""
        file = self._file(name, ".png")
        with self.apart(file.name):
            with whole(file) as unfinished:
                draw(unfinished)
            self.films.made.append(Film(name, file))

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{self._env_steps:010d}_{file_name(name)}{suffix}"


def film_episode(loaded: LoadedAgent, *, seed: int, lent: VectorEnv | None = None) -> Iterator[np.ndarray]:
    """Frames, each [height, width, 3 or so], of one greedy episode; none where there is nothing to see."""
    agent, params = loaded.agent, loaded.state.params
    image = next((spec.name for spec in agent.spaces.obs if spec.is_image), None)
    with one_copy(loaded.config.env, seed=seed, lent=lent) as env:
        rows = env.reset(seed=seed)
        state, key = initial_policy_state(agent, 1), jax.random.PRNGKey(seed)
        policy = greedy_policy(agent)
        for _ in range(min(LONGEST, loaded.config.eval.max_episode_steps)):
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


def _frames_of_states(loaded: LoadedAgent, seen: DreamBesideTruth) -> Iterable[np.ndarray]:
    """Frames of truth and dream as the environment draws them; none where it cannot draw a state."""
    scene = Scene(loaded.config.env, loaded.agent.spaces)
    try:
        return scene_frames(seen, scene) if scene.draws else ()
    finally:
        scene.close()


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame [height, width, 3 or so], some 200 pixels high or 800 wide: one for each square of pixels, their mean."""
    frame = enlarged(frame[None])[0]
    factor = max(1, frame.shape[0] // 200, frame.shape[1] // 800)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    squares = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return squares.mean((1, 3)).astype(np.uint8)
