"""Stores traced programs on disk: a second start with the same settings does not trace and lower them again.

JAX's compile cache finds a program only after Python has traced it, which takes most of such a start. This cache
therefore stores the traced program next to it. The key is a hash of this package's source, the libraries' versions,
JAX's settings, the device and the caller's `of`. Programs that cannot be exported are traced each time. Call
`disable()` before monkeypatching: the key hashes source files only.
"""

import functools
import hashlib
import importlib.metadata
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export

KEPT = 64  # newest programs, of 0.1 to 1 MB each
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    pickle.PickleError,
)


_disabled = False


def disable() -> None:
    """Neither reads nor stores programs in this process from now on. For code that monkeypatches this package."""
    global _disabled
    _disabled = True


class Traced(NamedTuple):
    """An exported program."""

    exported: bytes  # a function of lists of leaves
    outputs: Any  # the structure of the returned pytree


def lower(
    function: Callable[..., Any], inputs: tuple[Any, ...], *, of: Any, donate: tuple[int, ...] = ()
) -> jax.stages.Lowered:
    """`jax.jit(function).lower(*inputs)`, without tracing if this or another process traced it before.

    Args:
        function: of pytrees.
        inputs: their shapes and dtypes, `jax.ShapeDtypeStruct`s.
        of: everything else that the program depends on, such as settings and spaces; its `repr` is part of the key.
        donate: positions of the inputs whose buffers may be reused.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    stored = Path(folder) / "traced" / _key((of, inputs)) if folder and not _disabled else None
    traced = _read(stored) if stored else None
    if traced is None:
        try:
            traced = _trace(function, inputs)
        except (NotImplementedError, ValueError):  # Python callbacks, or operations without export stability
            return jax.jit(function, donate_argnums=donate).lower(*inputs)
        if stored:
            _write(stored, traced)
    call, outputs = export.deserialize(bytearray(traced.exported)).call, jax.tree.structure(traced.outputs)

    def program(*given: Any) -> Any:
        return jax.tree.unflatten(outputs, call(*jax.tree.leaves(given)))

    return jax.jit(program, donate_argnums=donate).lower(*inputs)


def _trace(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Traced:
    structure, outputs = jax.tree.structure(inputs), None

    # Leaves only, because `export` does not support this project's containers.
    def flat(*leaves: Any) -> list[Any]:
        nonlocal outputs
        result = function(*jax.tree.unflatten(structure, leaves))
        outputs = jax.tree.map(lambda _: 0, result)
        return jax.tree.leaves(result)

    exported = export.export(jax.jit(flat))(*jax.tree.leaves(inputs))
    return Traced(bytes(exported.serialize()), outputs)


def _key(of: Any) -> str:
    settings = {name: value for name, value in jax.config.values.items() if "cache" not in name and "log" not in name}
    device = jax.devices()[0]
    made_from = (
        *(importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")),
        _source(),
        sorted((name, repr(value)) for name, value in settings.items()),
        os.environ.get("XLA_FLAGS", ""),
        (device.platform, device.device_kind, len(jax.devices())),
        of,
    )
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:32]


@functools.cache
def _source() -> str:
    """A hash of this package's source files."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(str(file.relative_to(package)).encode() + file.read_bytes())
    return digest.hexdigest()


def _read(file: Path) -> Traced | None:
    try:
        exported, outputs = pickle.loads(file.read_bytes())
        return Traced(bytes(exported), outputs)
    except UNREADABLE:
        return None


def _write(file: Path, traced: Traced) -> None:
    """Stores a program; ignores errors such as a full disk."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(pickle.dumps(tuple(traced)))
        part.replace(file)
        for old in sorted(file.parent.iterdir(), key=lambda x: x.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        part.unlink(missing_ok=True)
