"""The web server of the page: static files, WebSockets, and one session for each browser."""

import asyncio
import contextlib
import errno
import functools
import hmac
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import WSCloseCode, WSMsgType, web

from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play.compiled_agent import CompiledAgent
from dreamerjax.play.episodes import StartEpisode, start_episodes
from dreamerjax.play.messages import MAX_MESSAGE, BadMessageError
from dreamerjax.play.session import Saved, Session
from dreamerjax.runtime.background import Background

PAGE = Path(__file__).parent / "page"
LOCAL = ("127.0.0.1", "localhost", "::1")
PORTS_TRIED = 20
KEPT_SECONDS = 60.0  # after its browser has disconnected, a session is kept this long
COMPILING = "Compiling the agent: about 20 seconds the first time, a few seconds later."
FULL = 4001  # close code: too many sessions
PUBLIC = tuple(sorted(file.name for file in PAGE.glob("*.[cj]s*")))  # served without a token
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PortError(RuntimeError):
    """No port is free, or the address cannot be used."""


class Settings(NamedTuple):
    """The settings of the server."""

    host: str = "127.0.0.1"
    port: int = 8123  # the first port to try
    most: int = 24  # maximum number of sessions
    seed: int = 0
    recordings: Path = Path("runs/recordings")
    saved: Saved = lambda files: None  # called with the files of each recording


class Place(NamedTuple):
    """A session and its browser."""

    session: Session
    browser: web.WebSocketResponse | None
    left: float  # `time.monotonic` when the browser disconnected


class Server:
    """Serves the page, from `start` to `stop`."""

    def __init__(self, dreamer: Dreamer, settings: Settings) -> None:
        """Serves an agent; `start` compiles its programs."""
        self._dreamer, self._settings = dreamer, settings
        self._compiled = CompiledAgent(dreamer)
        self._episodes: list[StartEpisode] = []
        self._preparing: Background | None = None
        self._ready = asyncio.Event()
        self.token = "" if settings.host in LOCAL else secrets.token_urlsafe(16)
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="dream")
        self._places: dict[str, Place] = {}
        self._entering = asyncio.Lock()  # one browser at a time
        self._sessions_made = 0
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task | None = None
        self.port = settings.port

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        host = "localhost" if self._settings.host in LOCAL else self._settings.host
        return f"http://{host}:{self.port}/{f'?token={self.token}' if self.token else ''}"

    async def start(self) -> None:
        """Listens on the first free port, and starts to compile in a thread; browsers wait until that is done.

        Raises:
            PortError: no port is free.
        """
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", _file("index.html"))
        app.router.add_get("/ws", self._socket)
        for name in PUBLIC:
            app.router.add_get(f"/{name}", _file(name))
        app.router.add_get("/recordings/{name}", self._recording)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        self.port = await self._listen(self._runner)
        self._sweeper = asyncio.create_task(self._sweep())
        self._preparing = Background(functools.partial(self._prepare, asyncio.get_running_loop()))

    async def ready(self) -> None:
        """Waits until the programs are compiled.

        Raises:
            Exception: an error while compiling.
        """
        await self._ready.wait()
        if self._preparing is not None:
            self._preparing.wait()

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Loads or plays the start episodes and compiles. Takes some seconds, in a thread."""
        try:
            self._episodes = start_episodes(self._dreamer)
            self._compiled.warm_up(self._episodes[0].rows if self._episodes else None)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._ready.set)

    async def stop(self) -> None:
        """Closes every session and the port."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for place in self._places.values():
            if place.browser is not None:
                await place.browser.close(code=WSCloseCode.GOING_AWAY, message=b"the server was stopped")
        for name in list(self._places):
            await self._remove(name)
        if self._runner is not None:
            await self._runner.cleanup()
        self._executor.shutdown(cancel_futures=True)

    @property
    def dreams(self) -> int:
        """The number of sessions, including those without a browser."""
        return len(self._places)

    async def _listen(self, runner: web.AppRunner) -> int:
        settings = self._settings
        ports = [0] if settings.port == 0 else range(settings.port, min(settings.port + PORTS_TRIED, 65536))
        for port in ports:
            site = web.TCPSite(runner, settings.host, port)
            try:
                await site.start()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise PortError(f"{settings.host}:{port} cannot be used: {error.strerror or error}.") from error
            return port or runner.addresses[0][1]
        raise PortError(f"Ports {ports[0]} to {ports[-1]} are all in use. Give another --port.")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        """Rejects requests without the token, and requests from pages of other sites."""
        if request.path.lstrip("/") in PUBLIC:
            allowed = True
        elif self.token:
            allowed = hmac.compare_digest(request.query.get("token", ""), self.token)
        else:
            allowed = request.url.host in LOCAL  # other host names: DNS rebinding
        origin = request.headers.get("Origin")
        if not allowed or (origin is not None and origin.partition("://")[2] != request.host):
            raise web.HTTPForbidden(text="Open the address that the program printed, including its token.")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(SECURITY)
        return response

    async def _recording(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        file = self._settings.recordings / name
        if Path(name).name != name or file.suffix not in (".mp4", ".npz") or not file.is_file():
            raise web.HTTPNotFound(text="There is no such recording.")
        return web.FileResponse(file)

    # Sockets

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE, heartbeat=20.0, compress=False)
        await socket.prepare(request)
        # In a task, so that the socket is read meanwhile and a disconnect is noticed.
        welcome = asyncio.create_task(self._welcome(request.query.get("dream", ""), socket))
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    raise BadMessageError("text expected")
                name = await welcome
                if name is not None:
                    await self._places[name].session.handle(message.data)
        except BadMessageError as error:
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=_short(f"Invalid message: {error}"))
        finally:
            if not self._ready.is_set():
                welcome.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await welcome
            for name, place in self._places.items():
                if place.browser is socket:  # unless another window has taken over the session
                    self._places[name] = place._replace(browser=None, left=time.monotonic())
                    await place.session.disconnect()
                    break
        return socket

    async def _welcome(self, name: str, socket: web.WebSocketResponse) -> str | None:
        """Connects a browser to its session and returns the session's name; None if there are too many."""
        lock = asyncio.Lock()  # keeps messages in order

        async def send(content: dict[str, Any] | bytes) -> None:
            async with lock:
                with contextlib.suppress(ConnectionError):
                    await (socket.send_bytes(content) if isinstance(content, bytes) else socket.send_json(content))

        if not self._ready.is_set():
            await send({"wait": COMPILING})
            await self._ready.wait()
        try:
            async with self._entering:
                entered = await self._enter(name, socket)
        except Exception as error:
            await socket.close(code=WSCloseCode.INTERNAL_ERROR, message=_short(f"The dream cannot start: {error}"))
            raise
        if entered is None:
            why = f"All {self._settings.most} dreams are in use. Try again later."
            await socket.close(code=FULL, message=why.encode())
            return None
        await send({"dream": entered})
        await self._places[entered].session.connect(send)
        return entered

    async def _enter(self, name: str, socket: web.WebSocketResponse) -> str | None:
        """Returns the name of the browser's earlier session or of a new one; None if there are too many."""
        if name in self._places:
            place = self._places[name]
            self._places[name] = place._replace(browser=socket)
            if place.browser is not None:
                await place.browser.close(code=WSCloseCode.GOING_AWAY, message=b"opened in another window")
            return name
        if len(self._places) >= self._settings.most:
            waiting = [(place.left, other) for other, place in self._places.items() if place.browser is None]
            if not waiting:
                return None
            await self._remove(min(waiting)[1])
        self._sessions_made += 1
        name = secrets.token_urlsafe(12)
        make = functools.partial(
            Session,
            self._dreamer,
            self._compiled,
            self._episodes,
            self._executor,
            seed=self._settings.seed + self._sessions_made,
            recordings=self._settings.recordings,
            saved=self._settings.saved,
        )
        session = await asyncio.get_running_loop().run_in_executor(self._executor, make)
        self._places[name] = Place(session, socket, 0.0)
        return name

    async def _remove(self, name: str) -> None:
        await self._places.pop(name).session.close()

    async def _sweep(self) -> None:
        """Closes sessions whose browser did not reconnect in time."""
        while True:
            await asyncio.sleep(KEPT_SECONDS / 12)
            now = time.monotonic()
            for name, place in list(self._places.items()):
                if place.browser is None and now - place.left > KEPT_SECONDS:
                    await self._remove(name)


def _file(name: str) -> Callable:
    async def serve(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE / name)

    return serve


def _short(text: str) -> bytes:
    """A reason for closing, cut to the 123 bytes that the protocol allows."""
    return text.encode()[:123].decode(errors="ignore").encode()
