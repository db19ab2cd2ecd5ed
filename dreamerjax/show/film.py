"""Films of an agent: a greedy episode, and its dream beside the truth. Training makes them now and then."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from dreamerjax.agent.policy import initial_policy_state
from dreamerjax.host.envs import make_env
from dreamerjax.host.evaluate import greedy_policy
from dreamerjax.host.load import LoadedAgent
from dreamerjax.host.reporter import Film
from dreamerjax.show.dreams import DreamBesideTruth, dream_beside_truth, dream_frames, plot_dream, scene_frames
from dreamerjax.show.scene import Scene
from dreamerjax.show.video import as_gif, enlarged, write_mp4

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
    for file in sorted((run_dir / "videos").glob("*_*")):
        steps, _, name = file.stem.partition("_")
        if steps.isdigit() and file.suffix in (".mp4", ".png") and file.stat().st_size:
            found.append(Filmed(int(steps), name, file))
    return sorted(found, key=lambda one: one.env_steps)


def film_run(loaded: LoadedAgent, *, seed: int = 0) -> list[Film]:
    """Writes what can be shown of an agent into `videos` of its run folder.

    Args:
        loaded: the agent.
        seed: of the episode and the dreams.

    Returns:
        The films: an episode (where the environment draws itself or shows images), and dreams beside the truth, as a
        film of images, or of a state where the environment can draw one, and as a plot of vectors.

    Raises:
        EnvError: the environment misbehaves.
        OSError: a file cannot be written.
    """
    folder = loaded.run_dir / "videos"
    folder.mkdir(exist_ok=True)
    episode = folder / f"{loaded.env_steps:010d}_episode.mp4"
    films = [_film(episode, film_episode(loaded, seed=seed), EPISODE_SPEED)]
    seen = dream_beside_truth(loaded, seed=seed)
    for spec in loaded.agent.spaces.obs:
        if spec.is_image:
            file = folder / f"{loaded.env_steps:010d}_dream_{spec.name}.mp4"
            films.append(_film(file, dream_frames(seen, spec.name), DREAM_SPEED))
    scene = _film_of_states(loaded, seen)
    if scene is not None:
        films.append(_film(folder / f"{loaded.env_steps:010d}_{SCENE}.mp4", scene, DREAM_SPEED))
    if any(spec.is_vector for spec in loaded.agent.spaces.obs):
        file = folder / f"{loaded.env_steps:010d}_dream.png"
        plot_dream(seen, file)
        films.append(Film("dream", file))
    return [film for film in films if film is not None]


def film_episode(loaded: LoadedAgent, *, seed: int) -> Iterator[np.ndarray]:
    """Frames, each [height, width, 3 or so], of one greedy episode; none where there is nothing to see."""
    agent, params = loaded.agent, loaded.state.params
    image = next((spec.name for spec in agent.spaces.obs if spec.is_image), None)
    env = make_env(dataclasses.replace(loaded.config.env, workers=0), copies=1, seed=seed)
    try:
        rows = env.reset()
        state, key = initial_policy_state(agent, 1), jax.random.PRNGKey(seed)
        policy = greedy_policy(agent)
        for _ in range(LONGEST):
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
    finally:
        env.close()


def _film_of_states(loaded: LoadedAgent, seen: DreamBesideTruth) -> np.ndarray | None:
    """Frames of truth and dream as the environment draws them; None where it shows images, or cannot draw a state."""
    if any(spec.is_image for spec in loaded.agent.spaces.obs):
        return None
    scene = Scene(loaded.config.env, loaded.agent.spaces)
    try:
        return scene_frames(seen, scene) if scene.draws else None
    finally:
        scene.close()


def _film(file: Path, frames: Iterable[np.ndarray], frames_per_second: float) -> Film | None:
    """Writes a film, of which only small frames are kept: for the GIF. None if there is no frame."""
    small: list[np.ndarray] = []

    def kept() -> Iterator[np.ndarray]:
        for frame in frames:
            small.append(_small(frame))
            yield frame

    if not write_mp4(kept(), file, frames_per_second=frames_per_second):
        return None
    every = -(-len(small) // GIF_FRAMES)
    name = file.stem.partition("_")[2]
    return Film(name, file, as_gif(small[::every], frames_per_second=frames_per_second / every))


def _small(frame: np.ndarray) -> np.ndarray:
    """A frame [height, width, 3 or so] that is some 200 pixels high: one for each square of pixels, their mean."""
    frame = enlarged(frame[None])[0]
    factor = max(1, frame.shape[0] // 200)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    squares = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return squares.mean((1, 3)).astype(np.uint8)
