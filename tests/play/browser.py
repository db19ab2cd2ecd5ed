"""A browser without a page, and a server for it."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play.server import Server, Settings


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
