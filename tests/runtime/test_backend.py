import json
import os
import re
import textwrap
from pathlib import Path

import jax
import pytest

from dreamerjax.runtime import backend
from dreamerjax.runtime.installed import find_plugin
from dreamerjax.runtime.platform_start import cpuinfo, default_xla_flag
from tests.system import run_python

JAX_SAYS = {"cuda": "no device", "rocm": "not in the list of known backends", "tpu": "libtpu.so"}


def select(*names: str, probe_seconds: int = 180, **environment: str) -> list[dict[str, str]]:
    """Selects back-ends one after the other in a fresh process; returns each result or error, and XLA_FLAGS."""
    code = f"""
        import json, os
        from dreamerjax.runtime import backend, platform_start
        platform_start.PROBE_SECONDS = {probe_seconds}
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
            from dreamerjax.runtime import backend, platform_start
            from jax._src import xla_bridge
            assert not xla_bridge.backends_are_initialized()
            assert platform_start.running_platform() is None
        """)
        assert child.returncode == 0, child.stderr

    @pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
    def test_missing_accelerator_is_explained_and_the_cpu_stays_usable(self, platform: str):
        if find_plugin(platform):
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
        default_xla_flag("--xla_b", "1")
        assert os.environ["XLA_FLAGS"] == after

    @pytest.mark.parametrize("given", ["", "--xla_cpu_prefer_vector_width=128"])
    def test_wide_vectors_on_the_cpu(self, given: str):
        wide = "--xla_cpu_prefer_vector_width=512" if "avx512f" in cpuinfo("flags").split() else ""
        (cpu,) = select("cpu", XLA_FLAGS=given)
        assert cpu["flags"] == given or wide
