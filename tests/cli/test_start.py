"""Signals while Python imports the program."""

import signal
import sys
import types

import pytest

from dreamerjax.__main__ import import_command_line


@pytest.mark.parametrize(
    ("before", "during"),
    [(signal.default_int_handler, signal.SIG_DFL), (signal.SIG_IGN, signal.SIG_IGN)],
    ids=["in a terminal", "ignored, as by nohup"],
)
def test_ctrl_c_during_the_imports_ends_the_process_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, before: object, during: object
) -> None:
    seen: list[object] = []

    class Recorder(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if name != "command_line":
                raise AttributeError(name)
            seen.append(signal.getsignal(signal.SIGINT))
            return lambda: None

    monkeypatch.setitem(sys.modules, "dreamerjax.cli", Recorder("dreamerjax.cli"))
    previous = signal.signal(signal.SIGINT, before)  # pyright: ignore[reportArgumentType]
    try:
        import_command_line()
        after = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert set(seen) == {during}
    assert after == before
