"""Films of an agent: a greedy episode, and its dream beside the truth. Training makes them now and then."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from dreamerjax.agent.policy import initial_policy_state
from dreamerjax.host.envs import make_env
from dreamerjax.host.evaluate import greedy_policy
from dreamerjax.host.load import LoadedAgent
from dreamerjax.host.reporter import Film
from dreamerjax.show.dreams import dream_beside_truth, dream_frames, plot_dream
from dreamerjax.show.video import as_gif, enlarged, write_mp4

LONGEST = 1000  # steps of an episode that are filmed
EPISODE_SPEED, DREAM_SPEED = 30.0, 10.0  # frames a second
GIF_FRAMES = 100  # at most; for TensorBoard, which keeps them in memory


def film_run(loaded: LoadedAgent, *, seed: int = 0) -> list[Film]:
    """Writes what can be shown of an agent into `videos` of its run folder.

    Args:
        loaded: the agent.
        seed: of the episode and the dreams.

    Returns:
        The films: an episode (where the environment draws itself or shows images), and dreams beside the truth, as a
        film of images and a plot of vectors.

    Raises:
        EnvError: the environment misbehaves.
        OSError: a file cannot be written.
    """
    folder = loaded.run_dir / "videos"
    folder.mkdir(exist_ok=True)
    films = []
    frames = film_episode(loaded, seed=seed)
    if frames is not None:
        films.append(_film(folder / f"{loaded.env_steps:010d}_episode.mp4", frames, EPISODE_SPEED))
    seen = dream_beside_truth(loaded, seed=seed)
    for spec in loaded.agent.spaces.obs:
        if spec.is_image:
            file = folder / f"{loaded.env_steps:010d}_dream_{spec.name}.mp4"
            films.append(_film(file, dream_frames(seen, spec.name), DREAM_SPEED))
    if any(spec.is_vector for spec in loaded.agent.spaces.obs):
        file = folder / f"{loaded.env_steps:010d}_dream.png"
        plot_dream(seen, file)
        films.append(Film("dream", file))
    return films


def film_episode(loaded: LoadedAgent, *, seed: int) -> np.ndarray | None:
    """Frames [T, height, width, 3 or so] of one greedy episode; None where there is nothing to see."""
    agent, params = loaded.agent, loaded.state.params
    image = next((spec.name for spec in agent.spaces.obs if spec.is_image), None)
    env = make_env(dataclasses.replace(loaded.config.env, workers=0), copies=1, seed=seed)
    try:
        rows, frames = env.reset(), []
        state, key = initial_policy_state(agent, 1), jax.random.PRNGKey(seed)
        policy = greedy_policy(agent)
        while len(frames) < LONGEST:
            frame = env.render()
            if frame is None and image is not None:
                frame = rows.obs[image][0]
            if frame is None:
                return None
            frames.append(frame)
            if rows.is_last.any():
                break
            state, action, key = policy(params, state, rows.obs, rows.is_first, key)
            rows = env.step(np.asarray(action))
        return np.stack(frames)
    finally:
        env.close()


def _film(file: Path, frames: np.ndarray, frames_per_second: float) -> Film:
    frames = enlarged(frames)
    write_mp4(frames, file, frames_per_second=frames_per_second)
    every = -(-len(frames) // GIF_FRAMES)
    coarser = max(1, frames.shape[1] // 200)
    small = frames[::every, ::coarser, ::coarser]
    name = file.stem.partition("_")[2]
    return Film(name, file, as_gif(small, frames_per_second=frames_per_second / every))
