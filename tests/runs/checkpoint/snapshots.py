"""Small snapshots, and checkpoints of them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import Snapshot
from dreamerjax.types import Knobs, Params, ReturnScale, TrainState


def make_state(seed: int = 0, width: int = 3) -> TrainState:
    """A small TrainState with every kind of leaf: floats, integers, keys, scalars and empty optimizer states."""
    key = jax.random.PRNGKey(seed)
    weights = {"dense": {"kernel": jax.random.normal(key, (width, 4)), "bias": jnp.ones(4, jnp.bfloat16)}}
    optimizer = optax.chain(optax.clip(1.0), optax.adam(1e-3))
    opt_state: Any = optimizer.init(weights)
    return TrainState(
        step=jnp.asarray(7 + seed, jnp.int32),
        params=Params(world_model=weights, actor=weights, critic=weights),
        slow_critic=weights,
        opt_state=Params(world_model=opt_state, actor=opt_state, critic=opt_state),
        return_scale=ReturnScale(low=jnp.float32(-1.5), high=jnp.float32(2.5)),
        knobs=Knobs(*(jnp.float32(0.1 * index) for index in range(len(Knobs.__dataclass_fields__)))),
        key=key,
    )


def make_snapshot(seed: int = 0, width: int = 3) -> Snapshot:
    arrays = {
        "obs/image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4) + np.uint8(seed),
        "reward": np.linspace(-1.0, 1.0, 5, dtype=np.float64),
        "head": np.asarray(2**40, np.int64),
    }
    return Snapshot(make_state(seed, width), arrays, {"env_steps": 4000 + seed, "random": 2**100, "best": -1.5}, b"\0x")


def like(width: int = 3) -> Any:
    return jax.eval_shape(lambda: make_state(0, width))


def assert_same(given: Snapshot, expected: Snapshot) -> None:
    assert jax.tree.structure(given.train_state) == jax.tree.structure(expected.train_state)
    for left, right in zip(jax.tree.leaves(given.train_state), jax.tree.leaves(expected.train_state), strict=True):
        assert isinstance(left, jax.Array)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        np.testing.assert_array_equal(left, right)
    assert given.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert given.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(given.arrays[name], array)
    assert (given.host, given.opaque) == (expected.host, expected.opaque)


def files_of(step_folder: Path) -> list[Path]:
    return sorted(path for path in step_folder.rglob("*") if path.is_file())


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def save_two(folder: Path) -> Path:
    """Saves 3000 (seed 0) and 4000 (seed 1); returns the folder of the newer."""
    checkpoint.save(folder, 3000, make_snapshot(0), keep=3)
    return checkpoint.save(folder, 4000, make_snapshot(1), keep=3)
