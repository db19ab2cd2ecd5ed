"""The server: many sessions at the same time, and errors."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from dreamerjax.envs import RenderError
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play import server as server_module
from dreamerjax.play import session
from dreamerjax.play.compiled_agent import CompiledAgent
from dreamerjax.play.session import MAX_UNDRAWN
from tests.play.browser import run, serving


def test_the_agent_acts(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (_, open_browser):
            browser = await open_browser()
            hello = await browser.text("hello")
            assert hello["hello"] == "tiny"
            assert hello["actions"] == [{"kind": "discrete", "size": 2}]
            assert hello["names"] == ["push left", "push right"]
            later = await browser.moment(lambda header: header["step"] >= 5)
            assert later["driver"] == "agent"
            assert later["dreamed"].startswith(b"\xff\xd8")  # JPEG
            assert later["real"] is not None

    run(test)


def test_a_render_error_is_reported_once_and_the_dream_continues(
    dreamer: Dreamer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(env: SerialVectorEnv) -> None:
        raise RenderError("gym:CartPole-v1: `render` raised RuntimeError: no display")

    monkeypatch.setattr(SerialVectorEnv, "render", fail)

    async def test() -> None:
        async with serving(dreamer, tmp_path) as (_, open_browser):
            browser = await open_browser()
            later = await browser.moment(lambda header: header["step"] >= 5)
            assert later["pictures"] == [0, 0]
            assert later["real"]["vectors"].keys() == {"state"}
            notes = [text["note"] for text in browser.texts if "note" in text]
            assert notes == ["No image: gym:CartPole-v1: `render` raised RuntimeError: no display"]
            hello = await browser.text("hello")
            assert not hello["draws"], "the dream is shown as numbers"

    run(test)


def test_the_dream_waits_for_a_slow_browser(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (_, open_browser):
            browser = await open_browser()
            await browser.text("hello")
            for _ in range(MAX_UNDRAWN):
                assert (await browser.socket.receive()).type is aiohttp.WSMsgType.BINARY
            with pytest.raises(asyncio.TimeoutError):
                await browser.socket.receive(timeout=1.0)
            await browser.ask(do="observe", on=False)  # requests are answered immediately
            waiting = await browser.moment()
            assert waiting["step"] == MAX_UNDRAWN - 1
            for _ in range(MAX_UNDRAWN):
                await browser.ask(do="drawn")
            assert (await browser.moment(lambda header: header["step"] >= MAX_UNDRAWN + 2))["blind"] > 0

    run(test)


def test_a_browser_waits_while_programs_compile(
    dreamer: Dreamer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = threading.Event()
    warm_up = CompiledAgent.warm_up

    def wait_and_warm_up(agent: CompiledAgent, *arguments: Any) -> None:
        assert compiled.wait(60)
        warm_up(agent, *arguments)

    monkeypatch.setattr(CompiledAgent, "warm_up", wait_and_warm_up)

    async def test() -> None:
        async with serving(dreamer, tmp_path) as (server, open_browser):
            gone, browser = await open_browser(), await open_browser()
            assert "Compiling" in (await browser.text("wait"))["wait"]
            await gone.socket.close()
            assert server.dreams == 0
            compiled.set()
            await server.ready()
            assert (await browser.moment(lambda header: header["step"] >= 2))["driver"] == "agent"
            assert server.dreams == 1

    run(test)


def test_an_error_while_programs_compile_is_raised(
    dreamer: Dreamer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(agent: CompiledAgent, *arguments: Any) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(CompiledAgent, "warm_up", fail)

    async def test() -> None:
        async with serving(dreamer, tmp_path) as (server, _):
            with pytest.raises(RuntimeError, match="no memory"):
                await server.ready()

    run(test)


def test_an_observing_agent_stops_at_the_end_of_the_real_episode(
    dreamer: Dreamer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "END_BELOW", -1.0)  # dreams never end

    async def test() -> None:
        async with serving(dreamer, tmp_path) as (_, open_browser):
            browser = await open_browser()
            await browser.ask(do="hold", action=[1.0, 0.0])
            ended = await browser.moment(lambda header: header["real"]["ended"])
            assert ended["real"]["failed"]
            assert not ended["running"]
            await browser.ask(do="driver", who="agent")
            still = await browser.moment(lambda header: header["driver"] == "agent")
            await asyncio.sleep(0.3)
            await browser.ask(do="observe", on=False)
            blind = await browser.moment(lambda header: not header["observing"])
            assert blind["number"] == still["number"] == ended["number"]
            assert (await browser.moment(lambda header: header["number"] > ended["number"]))["real"]["over"]

    run(test)


def test_the_dream_is_paused_until_a_key_is_held(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (_, open_browser):
            browser = await open_browser()
            await browser.ask(do="driver", who="you")
            still = await browser.moment(lambda header: header["driver"] == "you")
            await asyncio.sleep(0.3)
            await browser.ask(do="hold", action=[0.0, 1.0])
            first = await browser.moment(lambda header: header["number"] > still["number"])
            assert first["step"] == still["step"] + 1
            moved = await browser.moment(lambda header: header["step"] >= still["step"] + 3)
            assert first["action"] == moved["action"] == [0.0, 1.0]
            await browser.ask(do="hold", action=None)
            await browser.ask(do="step", action=[1.0, 0.0])
            last = await browser.moment(lambda header: header["action"] == [1.0, 0.0])
            await asyncio.sleep(0.3)
            await browser.ask(do="step", action=[0.0, 1.0])
            following = await browser.moment(lambda header: header["number"] > last["number"])
            assert following["step"] == last["step"] + 1

    run(test)


def test_rewinding_and_branching(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (_, open_browser):
            browser = await open_browser()
            await browser.ask(do="driver", who="you")
            before = await browser.moment(lambda header: header["driver"] == "you")
            await browser.ask(do="begin", episode=0, step=3)
            first = await browser.moment(lambda header: header["number"] > before["number"])
            assert first["step"] == 0
            for action in ([1.0, 0.0], [1.0, 0.0]):
                await browser.ask(do="step", action=action)
            second = await browser.moment(lambda header: header["step"] == 2 and not header["running"])
            await browser.ask(do="go", to=first["number"])
            back = await browser.moment(lambda header: header["number"] == first["number"])
            assert back["real"]["vectors"] == first["real"]["vectors"]
            await browser.ask(do="step", action=[0.0, 1.0])
            other = await browser.moment(lambda header: header["step"] == 1)
            assert other["parent"] == first["number"]
            assert other["number"] == second["number"] + 1
            await browser.ask(do="go", to=10**6)
            assert "was deleted" in (await browser.text("note"))["note"]

    run(test)


def test_a_recording_has_a_film_and_a_trajectory(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (server, open_browser):
            browser = await open_browser()
            await browser.ask(do="run", on=False)
            await browser.ask(do="record", on=True)
            for _ in range(6):
                await browser.ask(do="step", action=[1.0, 0.0])
            await browser.ask(do="record", on=False)
            saved = (await browser.text("saved"))["saved"]
            assert [Path(name).suffix for name in saved] == [".mp4", ".npz"]
            with np.load(tmp_path / "recordings" / saved[1]) as arrays:
                assert arrays["action"].shape == (7, 2)
                assert arrays["dream.state"].shape == arrays["real.state"].shape == (7, 4)
            base = f"http://127.0.0.1:{server.port}/recordings/"
            async with aiohttp.ClientSession() as client:
                async with client.get(base + saved[0]) as answer:
                    assert answer.status == 200
                    assert len(await answer.read()) == (tmp_path / "recordings" / saved[0]).stat().st_size
                for wrong in ("nothing.mp4", "..%2F..%2Fetc%2Fpasswd", "config.yaml"):
                    async with client.get(base + wrong) as answer:
                        assert answer.status == 404

    run(test)


def test_a_browser_that_reconnects_gets_its_dream(
    dreamer: Dreamer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "KEPT_SECONDS", 12.0)

    async def test() -> None:
        async with serving(dreamer, tmp_path) as (server, open_browser):
            browser = await open_browser()
            name = (await browser.text("dream"))["dream"]
            await browser.ask(do="run", on=False)
            paused = await browser.moment(lambda header: not header["running"])
            await browser.ask(do="step", action=[1.0, 0.0])
            before = await browser.moment(lambda header: header["number"] > paused["number"])
            await browser.socket.close()
            again = await open_browser(name)
            assert (await again.text("dream"))["dream"] == name
            after = await again.moment()
            assert after["number"] == before["number"]
            assert len((await again.text("hello"))["tree"]) == before["number"] + 1
            other = await open_browser(name)  # a second window takes it over
            assert (await again.closed())[1] == "opened in another window"
            await other.socket.close()
            monkeypatch.setattr(server_module, "KEPT_SECONDS", 0.1)
            while server.dreams:
                await asyncio.sleep(0.05)

    run(test)


def test_a_running_recording_is_saved_at_the_end(dreamer: Dreamer, tmp_path: Path) -> None:
    saved: list[Path] = []

    async def test() -> None:
        async with serving(dreamer, tmp_path, saved=saved.extend) as (_, open_browser):
            browser = await open_browser()
            await browser.ask(do="record", on=True)
            await browser.moment(lambda header: header["recording"] and header["step"] > 2)

    run(test)
    assert {file.suffix for file in saved} >= {".npz"}
    assert sorted(saved) == sorted((tmp_path / "recordings").iterdir())
    with np.load(next(file for file in saved if file.suffix == ".npz")) as arrays:
        assert len(arrays["step"]) > 2
