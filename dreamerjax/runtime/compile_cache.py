"""Traced programs that outlive the process: a second start of the same settings does not trace and lower them again.

The compiler's own cache finds a program only after Python has traced it, which takes longer than all the rest of such a
start. So the traced program is stored beside it, under all that it was made from: this package's source, the libraries'
versions, JAX's settings, the device and what the caller names. What cannot be stored is traced each time. Who changes
the program while it runs calls `disable` first: the source does not tell of it.
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

KEPT = 64  # programs, of 0.1 to 1 MB each: the newest
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
    """From now on, this process neither reads nor stores programs: for code that replaces functions of this package."""
    global _disabled
    _disabled = True


class Traced(NamedTuple):
    """A program without Python's part in it."""

    exported: bytes  # of its leaves alone
    outputs: Any  # the pytree that it returns, without anything in it


def lower(
    function: Callable[..., Any], inputs: tuple[Any, ...], *, of: Any, donate: tuple[int, ...] = ()
) -> jax.stages.Lowered:
    """`jax.jit(function).lower(*inputs)`, without tracing it if it was traced before, in whatever process.

    Args:
        function: of pytrees.
        inputs: their shapes and dtypes, `jax.ShapeDtypeStruct`s.
        of: what else the program depends on, with a telling `repr`: settings, spaces.
        donate: positions of the inputs that may be overwritten.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    stored = Path(folder) / "traced" / _key((of, inputs)) if folder and not _disabled else None
    traced = _read(stored) if stored else None
    if traced is None:
        try:
            traced = _trace(function, inputs)
        except (NotImplementedError, ValueError):  # calls into Python, or what JAX does not promise to keep
            return jax.jit(function, donate_argnums=donate).lower(*inputs)
        if stored:
            _write(stored, traced)
    call, outputs = export.deserialize(bytearray(traced.exported)).call, jax.tree.structure(traced.outputs)

    def program(*given: Any) -> Any:
        return jax.tree.unflatten(outputs, call(*jax.tree.leaves(given)))

    return jax.jit(program, donate_argnums=donate).lower(*inputs)


def _trace(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Traced:
    structure, outputs = jax.tree.structure(inputs), None

    # Leaves alone, because an export does not know the project's own containers.
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
    """A digest of this package's files."""
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
    """Stores a program for later; a disk that is full costs time and nothing else."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(pickle.dumps(tuple(traced)))
        part.replace(file)
        for old in sorted(file.parent.iterdir(), key=lambda x: x.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        part.unlink(missing_ok=True)
