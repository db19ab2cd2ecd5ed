"""XLA's own cache: its folder, a second process that compiles nothing, and damage."""

import os
from pathlib import Path

import jax
import pytest

from dreamerjax.runtime import xla_cache
from tests.system import run_python


class TestCompilationCache:
    @pytest.fixture(autouse=True)
    def restore(self, monkeypatch):
        for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
            monkeypatch.delenv(name, raising=False)
        options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
        before = {option: getattr(jax.config, option) for option in options}
        yield
        for option, value in before.items():
            jax.config.update(option, value)
        xla_cache.compilation_cache.reset_cache()

    def test_folders_in_their_order(self, monkeypatch, tmp_path: Path):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert xla_cache.enable_compilation_cache() == tmp_path / "home/.cache/dreamerjax/xla"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/do/not/count")
        assert xla_cache.enable_compilation_cache() == tmp_path / "home/.cache/dreamerjax/xla"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert xla_cache.enable_compilation_cache() == tmp_path / "xdg/dreamerjax/xla"
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
        assert xla_cache.enable_compilation_cache() == tmp_path / "jax"
        assert xla_cache.enable_compilation_cache(tmp_path / "mine") == tmp_path / "mine"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5

    def test_folder_that_cannot_be_written_means_no_cache(self, tmp_path: Path):
        (tmp_path / "file").touch()
        assert xla_cache.enable_compilation_cache(tmp_path / "file" / "xla") is None
        assert jax.config.jax_compilation_cache_dir is None
        assert jax.jit(lambda x: x + 1)(1) == 2

    def test_second_process_compiles_nothing_and_damage_is_harmless(self, tmp_path: Path):
        code = """
            import jax, jax.numpy as jnp
            from dreamerjax.runtime import backend, xla_cache
            events = []
            jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
            backend.select_backend("cpu")
            before = jax.jit(lambda x: x + 1)(jnp.ones(3))  # compiled before there is a cache
            assert xla_cache.enable_compilation_cache() is not None
            step = jax.jit(lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), c.sum()), x, length=4))
            step(jnp.ones((64, 64)))[0].block_until_ready()
            print(sum(name == "/jax/compilation_cache/cache_hits" for name in events))
        """
        environment = {
            "XDG_CACHE_HOME": str(tmp_path),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        first = run_python(code, **environment)
        assert (first.stdout, first.stderr) == ("0\n", "")
        entries = list(tmp_path.glob("dreamerjax/xla/*-cache"))
        assert entries
        second = run_python(code, **environment)
        assert (int(second.stdout), second.stderr) == (len(entries), "")
        for entry in entries:
            os.truncate(entry, entry.stat().st_size // 2)
        third = run_python(code, **environment)
        assert (third.stdout, third.stderr, third.returncode) == ("0\n", "", 0)
