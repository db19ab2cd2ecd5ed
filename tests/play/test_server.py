"""The server: many sessions at the same time, and errors."""

import asyncio
import contextlib
import json
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

import dreamerjax
from dreamerjax.envs import RenderError
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play import server as server_module
from dreamerjax.play import session
from dreamerjax.play.compiled_agent import CompiledAgent
from dreamerjax.play.server import FULL, PortError, Server, Settings
from dreamerjax.play.session import MAX_UNDRAWN
from tests.tiny_run import make_run


@pytest.fixture(scope="module")
def dreamer(tmp_path_factory: pytest.TempPathFactory) -> Dreamer:
    return dreamerjax.load(make_run(tmp_path_factory.mktemp("run") / "a"))


class Browser:
    """A client with the protocol of the page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.texts: list[dict[str, Any]] = []

    async def ask(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def moment(self, until: Callable[[dict[str, Any]], bool] = lambda header: True) -> dict[str, Any]:
        """The next moment for which `until` is True, with its dreamed image."""
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self.texts.append(json.loads(message.data))
            elif message.type is aiohttp.WSMsgType.BINARY:
                await self.ask(do="drawn")
                (length,) = struct.unpack_from("<I", message.data)
                header = json.loads(message.data[4 : 4 + length])
                sizes = header["pictures"]
                assert len(message.data) == 4 + length + sum(sizes)
                header["dreamed"] = message.data[4 + length :][: sizes[0]]
                if until(header):
                    return header
            else:
                raise AssertionError(f"closed: {self.socket.close_code} {message.extra or message.data}")

    async def text(self, key: str) -> dict[str, Any]:
        while not any(key in text for text in self.texts):
            await self.receive_text()
        return next(text for text in self.texts if key in text)

    async def receive_text(self) -> None:
        message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            self.texts.append(json.loads(message.data))

    async def closed(self) -> tuple[int | None, str]:
        while True:
            message = await self.socket.receive()
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                return self.socket.close_code, str(message.extra or "")


@contextlib.asynccontextmanager
async def serving(dreamer: Dreamer, tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Server, Callable]]:
    server = Server(dreamer, Settings(port=0, recordings=tmp_path / "recordings", **settings))
    await server.start()
    async with aiohttp.ClientSession() as client:

        async def open_browser(dream: str = "", **options: Any) -> Browser:
            url = f"http://127.0.0.1:{server.port}/ws?dream={dream}&token={server.token}"
            return Browser(await client.ws_connect(url, **options))

        try:
            yield server, open_browser
        finally:
            await server.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # pyright: ignore[reportArgumentType]


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


def test_malformed_and_oversized_messages_close_only_their_socket(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path, most=4) as (server, open_browser):
            good = await open_browser()
            for bad in ("{", '{"do": "dance"}', '{"do": "hold", "action": [1.0]}', '{"do": "begin", "episode": 999}'):
                browser = await open_browser()
                await browser.socket.send_str(bad)
                code, reason = await browser.closed()
                assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
                assert reason.startswith("Invalid message: ")
            browser = await open_browser()
            await browser.socket.send_bytes(b"\x00")
            assert (await browser.closed())[0] == aiohttp.WSCloseCode.POLICY_VIOLATION
            browser = await open_browser()
            await browser.socket.send_str("x" * 100_000)
            assert (await browser.closed())[0] == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            assert (await good.moment(lambda header: header["step"] >= 3))["running"] in (True, False)
            assert server.dreams <= 4

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


def test_a_browser_above_the_limit_is_rejected(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path, most=2) as (server, open_browser):
            first, second = await open_browser(), await open_browser()
            await first.moment()
            await second.moment()
            code, reason = await (await open_browser()).closed()
            assert code == FULL
            assert "All 2 dreams are in use" in reason
            await first.socket.close()
            while (await (await open_browser()).socket.receive()).type is not aiohttp.WSMsgType.TEXT:
                pass  # until the session of the closed browser is replaced
            assert server.dreams == 2

    run(test)


def test_the_next_free_port_is_used(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (first, _):
            second = Server(dreamer, Settings(port=first.port, recordings=tmp_path))
            await second.start()
            assert first.port < second.port <= first.port + 20
            await second.stop()
            third = Server(dreamer, Settings(host="192.0.2.1", port=first.port, recordings=tmp_path))
            with pytest.raises(PortError, match=r"192\.0\.2\.1"):
                await third.start()
            await third.stop()

    run(test)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example:80"}, 403),
        ({"Origin": "http://evil.example"}, 403),
    ],
)
def test_requests_from_other_sites_are_rejected(dreamer: Dreamer, tmp_path: Path, headers: dict, status: int) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path) as (server, _), aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{server.port}/", headers=headers) as answer:
                assert answer.status == status
                if status == 200:
                    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            for name in server_module.PUBLIC:
                async with client.get(f"http://127.0.0.1:{server.port}/{name}") as answer:
                    assert answer.status == 200

    run(test)


def test_other_machines_need_a_token(dreamer: Dreamer, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(dreamer, tmp_path, host="0.0.0.0") as (server, open_browser):
            assert server.token in server.url
            await (await open_browser()).moment()
            async with aiohttp.ClientSession() as client:
                for token, status in (("", 403), ("wrong", 403), (server.token, 200)):
                    async with client.get(f"http://127.0.0.1:{server.port}/?token={token}") as answer:
                        assert answer.status == status

    run(test)
