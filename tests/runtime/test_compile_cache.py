"""Programs are traced once and stored: same numbers, no second tracing, and damaged files are replaced."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreamerjax.runtime import compile_cache

SHAPES = (jax.ShapeDtypeStruct((3,), jnp.float32), {"y": jax.ShapeDtypeStruct((), jnp.float32)})


class Pair(NamedTuple):
    """A container that JAX's export does not support."""

    sum: jax.Array
    nothing: None


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "traced"
    jax.config.update("jax_compilation_cache_dir", before)


def traced(of: str = "a") -> tuple[jax.stages.Lowered, int]:
    """The program, and how often it was traced."""
    calls = []

    def function(x: jax.Array, more: dict[str, jax.Array]) -> Pair:
        calls.append(x)
        return Pair(jnp.sin(x).sum() + more["y"], None)

    return compile_cache.lower(function, SHAPES, of=of), len(calls)


def test_a_program_is_traced_once(folder: Path) -> None:
    lowered, calls = traced()
    assert calls == 1
    again, calls = traced()
    assert calls == 0
    inputs = np.arange(3, dtype=np.float32), {"y": np.float32(2)}
    truth = Pair(np.float32(np.sin([0.0, 1, 2]).sum() + 2), None)
    assert again.compile()(*inputs) == lowered.compile()(*inputs) == truth
    assert again.out_info.sum.shape == ()
    assert len(list(folder.iterdir())) == 1


def test_the_key_depends_on_what_a_program_was_made_from(folder: Path) -> None:
    traced("a")
    assert traced("b")[1] == 1
    assert traced("a")[1] == 0
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    assert traced("a")[1] == 1
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    assert traced("a")[1] == 0


@pytest.mark.parametrize("damage", [b"", b"no pickle", b"\x80\x04K\x01."])
def test_a_damaged_file_is_replaced(folder: Path, damage: bytes) -> None:
    traced()
    (file,) = folder.iterdir()
    file.write_bytes(damage)
    assert traced()[1] == 1
    assert traced()[1] == 0


def test_the_oldest_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "KEPT", 2)
    for of in "abc":
        traced(of)
    assert len(list(folder.iterdir())) == 2
    assert traced("c")[1] == 0


def test_nothing_is_stored_without_a_cache(tmp_path: Path) -> None:
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    assert traced()[1] == traced()[1] == 1
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_process_that_changes_the_program_neither_reads_nor_stores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced("a")
    monkeypatch.setattr(compile_cache, "_disabled", False)  # restored at the end
    compile_cache.disable()
    assert traced("a")[1] == traced("b")[1] == 1
    assert len(list(folder.iterdir())) == 1


def test_donated_inputs_are_overwritten(folder: Path) -> None:
    for _ in range(2):
        lowered = compile_cache.lower(lambda x: x + 1, (SHAPES[0],), of="d", donate=(0,))
        given = jnp.zeros(3)
        lowered.compile()(given)
        assert given.is_deleted()


def test_programs_that_cannot_be_exported_are_traced_each_time(folder: Path) -> None:
    def function(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda x: np.asarray(x) + 1, jax.ShapeDtypeStruct((3,), jnp.float32), x)

    for _ in range(2):
        lowered = compile_cache.lower(function, (SHAPES[0],), of="c")
        assert lowered.compile()(np.zeros(3, np.float32)).tolist() == [1, 1, 1]
    assert not list(folder.parent.rglob("traced/*"))


def test_another_process_finds_it(tmp_path: Path) -> None:
    program = (
        "import jax\nfrom dreamerjax.runtime import compile_cache\n"
        f"jax.config.update('jax_compilation_cache_dir', {str(tmp_path)!r})\n"
        "def f(x):\n    print('traced')\n    return x * 2\n"
        "print(compile_cache.lower(f, (jax.ShapeDtypeStruct((), 'float32'),), of='p').compile()(4.0))\n"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert said == [["traced", "8.0"], ["8.0"]]
