import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import pytest

from dreamerjax.runtime import backend

PROJECT = Path(__file__).parents[2]
JAX_SAYS = {"cuda": "no device", "rocm": "not in the list of known backends", "tpu": "libtpu.so"}


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh process, in which JAX has not started, with every warning an error."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "XLA_"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=PROJECT,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )


def select(*names: str, probe_seconds: int = 180, **environment: str) -> list[dict[str, str]]:
    """Selects back-ends one after the other in a fresh process; returns each result or error, and XLA_FLAGS."""
    code = f"""
        import json, os
        from dreamerjax.runtime import backend
        backend.PROBE_SECONDS = {probe_seconds}
        for name in {names}:
            try:
                answer = backend.select_backend(name)._asdict()
            except backend.BackendError as error:
                answer = dict(error=str(error), reason=error.reason)
            print(json.dumps(answer | dict(flags=os.environ.get("XLA_FLAGS", ""))))
    """
    child = run_python(code, **environment)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    return [json.loads(line) for line in child.stdout.splitlines()]


@pytest.fixture
def fake_rocm(tmp_path: Path):
    """Returns a function that makes an installed ROCm plugin out of the code of its `initialize` function."""

    def make(initialize: str) -> dict[str, str]:
        information = tmp_path / "fake_rocm-9.8.7.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-rocm\nVersion: 9.8.7\n")
        (information / "entry_points.txt").write_text("[jax_plugins]\nxla_rocm7 = fake_rocm\n")
        heading = "import os, time\nfrom jax._src import xla_bridge\ndef initialize():\n"
        (tmp_path / "fake_rocm.py").write_text(heading + textwrap.indent(initialize, "    "))
        return {"PYTHONPATH": str(tmp_path)}

    return make


class TestSelect:
    def test_importing_starts_nothing(self):
        child = run_python("""
            from dreamerjax.runtime import backend
            from jax._src import xla_bridge
            assert not xla_bridge.backends_are_initialized()
            assert backend._running_platform() is None
        """)
        assert child.returncode == 0, child.stderr

    @pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
    def test_missing_accelerator_is_explained_and_the_cpu_stays_usable(self, platform: str):
        if backend._plugin(platform):
            pytest.skip(f"the plugin of {platform} is installed here")
        missing, cpu = select(platform, "cpu")
        asked, reason, remedy = missing["error"].splitlines()
        assert f"Back-end {platform} was asked for" in asked
        assert reason.startswith("Reason: no plugin installed; JAX ")
        assert JAX_SAYS[platform] in reason
        assert f'pip install "dreamerjax[{platform}]"' in remedy
        assert cpu["platform"] == "cpu"

    def test_plugin_without_hardware_gives_its_own_reason(self, fake_rocm):
        plugin = fake_rocm('raise ValueError("No AMD GPUs were found,\\n  skipping")')
        missing, automatic = select("rocm", "auto", **plugin)
        _, reason, remedy = missing["error"].splitlines()
        assert "fake-rocm 9.8.7 with JAX" in reason
        assert "says: No AMD GPUs were found, skipping" in reason
        assert os.path.exists("/dev/kfd") or "there is no /dev/kfd" in reason
        assert "https://rocm.docs.amd.com" in remedy
        assert automatic["platform"] == "cpu"
        assert "No AMD GPUs were found" in automatic["note"]

    @pytest.mark.parametrize(
        ("accident", "words"), [("os.abort()", "SIGABRT"), ("time.sleep(60)", "no answer from the device")]
    )
    def test_driver_that_crashes_or_hangs_harms_only_a_child(self, fake_rocm, accident: str, words: str):
        plugin = fake_rocm(f"xla_bridge.register_backend_factory('rocm', lambda: {accident}, fail_quietly=False)")
        (automatic,) = select("auto", probe_seconds=5 if "sleep" in accident else 180, **plugin)
        assert automatic["platform"] == "cpu"
        assert words in automatic["note"]
        assert "\n" not in automatic["note"]

    def test_working_accelerator_is_taken_with_command_buffers_off(self, fake_rocm):
        plugin = fake_rocm("xla_bridge.register_backend_factory('rocm', xla_bridge.make_cpu_client)")
        automatic, again, cpu = select("auto", "rocm", "cpu", **plugin)
        assert automatic["platform"] == again["platform"] == "rocm"
        assert automatic["note"] == "auto: rocm works here"
        assert automatic["flags"] == "--xla_gpu_enable_command_buffer="
        assert "already runs on rocm" in cpu["reason"]

    def test_auto_follows_the_environment(self):
        (automatic,) = select("auto", JAX_PLATFORMS="cpu")
        assert automatic["platform"] == "cpu"
        assert automatic["note"] == "auto: JAX_PLATFORMS=cpu decides"

    def test_too_late_for_another_platform(self):
        jax.devices()
        for platform in ("cuda", "rocm", "tpu"):
            with pytest.raises(
                backend.BackendError, match=f"{platform} was asked for.\nReason: JAX already runs on cpu"
            ):
                backend.select_backend(platform)

    def test_selecting_the_running_platform_again(self):
        jax.devices()
        selected = backend.select_backend("cpu")
        assert selected == backend.select_backend("cpu", also_cpu=True)
        assert re.fullmatch(r".+ \(\d+ cores?\)", selected.device)
        assert backend.select_backend("auto") == selected._replace(note="auto: JAX already runs on cpu")

    def test_unknown_name(self):
        with pytest.raises(backend.BackendError, match="'gpu' was asked for") as raised:
            backend.select_backend("gpu")
        assert "auto, cpu, cuda, rocm, tpu" in str(raised.value)


class TestXlaFlags:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (None, "--xla_b=1"),
            ("", "--xla_b=1"),
            ("--xla_a=2", "--xla_a=2 --xla_b=1"),
            ("--xla_bb=2", "--xla_bb=2 --xla_b=1"),
            ("--xla_a=2 --xla_b=3", "--xla_a=2 --xla_b=3"),
            ("--xla_b=", "--xla_b="),
            ("--xla_b", "--xla_b"),
            ("/home/me/flags.txt", "/home/me/flags.txt"),
        ],
    )
    def test_default_gives_way_to_the_user(self, monkeypatch, before: str | None, after: str):
        monkeypatch.setenv("XLA_FLAGS", before or "")  # set in any case, so that it is restored in any case
        if before is None:
            monkeypatch.delenv("XLA_FLAGS")
        backend._default_xla_flag("--xla_b", "1")
        assert os.environ["XLA_FLAGS"] == after

    @pytest.mark.parametrize("given", ["", "--xla_cpu_prefer_vector_width=128"])
    def test_wide_vectors_on_the_cpu(self, given: str):
        wide = "--xla_cpu_prefer_vector_width=512" if "avx512f" in backend._cpuinfo("flags").split() else ""
        (cpu,) = select("cpu", XLA_FLAGS=given)
        assert cpu["flags"] == given or wide


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
        backend.compilation_cache.reset_cache()

    def test_folders_in_their_order(self, monkeypatch, tmp_path: Path):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert backend.enable_compilation_cache() == tmp_path / "home/.cache/dreamerjax/xla"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/do/not/count")
        assert backend.enable_compilation_cache() == tmp_path / "home/.cache/dreamerjax/xla"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert backend.enable_compilation_cache() == tmp_path / "xdg/dreamerjax/xla"
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "jax"))
        assert backend.enable_compilation_cache() == tmp_path / "jax"
        assert backend.enable_compilation_cache(tmp_path / "mine") == tmp_path / "mine"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5

    def test_folder_that_cannot_be_written_means_no_cache(self, tmp_path: Path):
        (tmp_path / "file").touch()
        assert backend.enable_compilation_cache(tmp_path / "file" / "xla") is None
        assert jax.config.jax_compilation_cache_dir is None
        assert jax.jit(lambda x: x + 1)(1) == 2

    def test_second_process_compiles_nothing_and_damage_is_harmless(self, tmp_path: Path):
        code = """
            import jax, jax.numpy as jnp
            from dreamerjax.runtime import backend
            events = []
            jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
            backend.select_backend("cpu")
            before = jax.jit(lambda x: x + 1)(jnp.ones(3))  # compiled before there is a cache
            assert backend.enable_compilation_cache() is not None
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


def test_versions():
    found = backend.versions()
    assert list(found)[:3] == ["dreamerjax", "python", "jax"]
    assert {"jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "numpy"} <= set(found)
    assert all(re.match(r"\d+\.\d+", version) for version in found.values()), found
