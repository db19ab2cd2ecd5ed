"""A train state of another model is refused, with the array that differs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dreamerjax.runs import checkpoint
from dreamerjax.runs.checkpoint import CheckpointError, Snapshot
from tests.runs.checkpoint.snapshots import like, make_snapshot, make_state


def test_the_stored_state_may_have_another_precision(folder: Path) -> None:
    checkpoint.save(folder, 1, make_snapshot(), keep=1)

    def half(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return leaf.update(dtype=jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf

    state = checkpoint.restore(folder, jax.tree.map(half, like()))[0].train_state
    kernel = state.params.actor["dense"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel, make_state().params.actor["dense"]["kernel"].astype(jnp.bfloat16))
    assert state.key.dtype == jnp.uint32


def test_another_shape_is_named(folder: Path) -> None:
    checkpoint.save(folder, 4000, make_snapshot(), keep=1)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(folder, like(width=5))
    assert str(caught.value).startswith(
        "Checkpoint 4000 is of another model: params.world_model.dense.kernel is float32[3,4] there, "
        "expected float32[5,4].\n"
    )


def test_another_structure_or_kind_is_named(folder: Path) -> None:
    checkpoint.save(folder, 1, Snapshot({"a": jnp.zeros(2), "b": jnp.zeros((), jnp.int32)}, {}, {}), keep=1)
    a, b = jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    with pytest.raises(CheckpointError, match=r"c\.0 is missing there, expected int32\[\]"):
        checkpoint.restore(folder, {"a": a, "b": b, "c": (b,)})
    with pytest.raises(CheckpointError, match=r"b is int32\[\] there, expected missing"):
        checkpoint.restore(folder, {"a": a})
    with pytest.raises(CheckpointError, match=r"b is int32\[\] there, expected uint32\[\]"):
        checkpoint.restore(folder, {"a": a, "b": b.update(dtype=jnp.uint32)})
    assert checkpoint.restore(folder, {"a": a, "b": b, "empty": optax.EmptyState()})[1].step == 1
