"""What the tests of suites share: environments, random steps, and marks for packages of others."""

from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import pytest

from dreamerjax.config import EnvConfig
from dreamerjax.envs import VectorEnv, make_env
from dreamerjax.types import ObsSpec, Rows

IMAGE = ObsSpec("image", (64, 64, 3))
# For `pytestmark`. SWIG's warning, in Box2D, would abort the process if it were an error.
THIRD_PARTY = [
    pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Accessing `.*` directly from `Data` is deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("others_may_broadcast"),
]


def needs(package: str) -> pytest.MarkDecorator:
    """Skips a test if its package is not installed."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")


def make(env_id: str, *, num_envs: int = 2, seed: int = 0, **options) -> VectorEnv:
    return make_env(EnvConfig(id=env_id, **options), num_envs=num_envs, seed=seed)


def walk(env: VectorEnv, steps: int = 50) -> list[Rows]:
    """The rows of random actions with a fixed seed."""
    generator = np.random.default_rng(0)
    return [env.reset(), *(env.step(env.random_action(generator)) for _ in range(steps))]


def same(left: Any, right: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right)))


def only(env: VectorEnv, choice: int) -> np.ndarray:
    """The same choice in all copies."""
    return np.eye(env.spaces.action_size, dtype=np.float32)[[choice] * env.num_envs]
