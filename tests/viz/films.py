"""An untrained agent to film; sizes and frames of films."""

import io
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import jax
from PIL import Image

from dreamerjax.agent.agent import build_agent, init_train_state
from dreamerjax.config import Config, EnvConfig
from dreamerjax.envs import make_env
from dreamerjax.runs.load import LoadedAgent
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
