"""What the server refuses: other sites, wrong tokens, malformed messages, ports in use and too many browsers."""

from pathlib import Path

import aiohttp
import pytest

from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play import server as server_module
from dreamerjax.play.server import FULL, PortError, Server, Settings
from tests.play.browser import run, serving


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
