"""Checks that a stored train state fits the agent that loads it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dreamerjax.runs.checkpoint.snapshot import CheckpointError
from dreamerjax.runs.run_folder import different_keys


def check_family(host: Mapping[str, Any], family: Mapping[str, Any] | None, *, step: int) -> None:
    """Compares the keys of the stored model family with the expected ones; None, and an older checkpoint: any.

    Raises:
        CheckpointError: the checkpoint is of another family.
    """
    stored = host.get("family", {}).get("keys")
    if family is not None and stored is not None and (different := different_keys(stored, family)):
        raise CheckpointError(
            f"Checkpoint {step} is of another environment or architecture: {'; '.join(different)}.\n"
            "Use the settings and the variant that it was trained with, or another run folder."
        )


def fit(stored: Any, like: Any, *, step: int, partly: bool) -> Any:
    """Puts stored arrays into the tree of `like`, by their paths.

    Args:
        stored: nested dicts and lists of arrays.
        like: the expected tree.
        step: of the checkpoint, for the error.
        partly: whether `stored` may hold more than `like`.

    Raises:
        CheckpointError: an array is missing, left over, or of another shape or kind.
    """
    found = {names_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(stored)}
    expected, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {names_of(path): leaf for path, leaf in expected}
    for names in wanted if partly else dict.fromkeys([*wanted, *found]):
        there, here = found.get(names), wanted.get(names)
        if there is None or here is None or not _compatible(there, here):
            raise CheckpointError(
                f"Checkpoint {step} is of another model: {'.'.join(names)} is {describe(there)} there, "
                f"expected {describe(here)}.\n"
                "Use the settings (and --variant) that it was trained with, or another run folder."
            )
    # Copied: JAX may keep a numpy array's memory, and that cannot be donated.
    leaves = [jnp.array(found[names], dtype=leaf.dtype, copy=True) for names, leaf in wanted.items()]
    return jax.tree_util.tree_unflatten(structure, leaves)


def names_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names on a path of a pytree."""
    return tuple(jax.tree_util.keystr((entry,), simple=True) for entry in path)


def describe(leaf: Any) -> str:
    """Dtype and shape of an array: `float32[3,4]`."""
    return "missing" if leaf is None else f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _compatible(there: Any, here: Any) -> bool:
    """Same shape, and the same kind of number: float32 may become bfloat16, but not an integer."""
    kinds = (jnp.floating, jnp.signedinteger, jnp.unsignedinteger, jnp.bool_)
    same_kind = any(jnp.issubdtype(there.dtype, kind) and jnp.issubdtype(here.dtype, kind) for kind in kinds)
    return tuple(there.shape) == tuple(here.shape) and same_kind
