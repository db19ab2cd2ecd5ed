"""The server of the page: files, sockets, and one dream for each browser."""

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
from dreamerjax.play.brain import Brain
from dreamerjax.play.messages import LARGEST_MESSAGE, BadMessageError
from dreamerjax.play.session import Saved, Session
from dreamerjax.play.starts import Episode, episodes_of
from dreamerjax.runtime.background import Background

PAGE = Path(__file__).parent / "page"
LOCAL = ("127.0.0.1", "localhost", "::1")
PORTS_TRIED = 20
KEPT_SECONDS = 60.0  # a dream whose browser has gone
COMPILING = "Compiling the agent's programs: some 20 seconds the first time, a few later."
FULL = 4001  # close code: too many dreams
OPEN = tuple(sorted(file.name for file in PAGE.glob("*.[cj]s*")))  # served to everybody: nothing of a dream
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
    """How the page is served."""

    host: str = "127.0.0.1"
    port: int = 8123  # the first one that is tried
    most: int = 24  # dreams at the same time
    seed: int = 0
    recordings: Path = Path("runs/recordings")
    saved: Saved = lambda files: None  # is told the files of each recording


class Place(NamedTuple):
    """A dream and who has it."""

    session: Session
    browser: web.WebSocketResponse | None
    left: float  # when the browser went, on the clock of `time.monotonic`


class Server:
    """Serves the page, from `start` to `stop`."""

    def __init__(self, dreamer: Dreamer, settings: Settings) -> None:
        """Of an agent; `start` compiles its programs."""
        self._dreamer, self._settings = dreamer, settings
        self._brain = Brain(dreamer)
        self._episodes: list[Episode] = []
        self._preparing: Background | None = None
        self._ready = asyncio.Event()
        self.token = "" if settings.host in LOCAL else secrets.token_urlsafe(16)
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="dream")
        self._places: dict[str, Place] = {}
        self._door = asyncio.Lock()  # one browser enters at a time
        self._made = 0
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task | None = None
        self.port = settings.port

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host = "localhost" if self._settings.host in LOCAL else self._settings.host
        return f"http://{host}:{self.port}/{f'?token={self.token}' if self.token else ''}"

    async def start(self) -> None:
        """Listens on the first free port, and begins to prepare the dreams; browsers wait for that.

        Raises:
            PortError: there is none.
        """
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", _file("index.html"))
        app.router.add_get("/ws", self._socket)
        for name in OPEN:
            app.router.add_get(f"/{name}", _file(name))
        app.router.add_get("/recordings/{name}", self._recording)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        self.port = await self._listen(self._runner)
        self._sweeper = asyncio.create_task(self._sweep())
        self._preparing = Background(functools.partial(self._prepare, asyncio.get_running_loop()))

    async def ready(self) -> None:
        """Waits until dreams can begin.

        Raises:
            Exception: what went wrong while they were prepared.
        """
        await self._ready.wait()
        if self._preparing is not None:
            self._preparing.wait()

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        """Compiles, and plays what the dreams begin from; that takes some seconds. In a thread."""
        try:
            self._episodes = episodes_of(self._dreamer)
            self._brain.warm_up(self._episodes[0].rows if self._episodes else None)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._ready.set)

    async def stop(self) -> None:
        """Ends every dream and frees the port."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for place in self._places.values():
            if place.browser is not None:
                await place.browser.close(code=WSCloseCode.GOING_AWAY, message=b"the server has ended")
        for name in list(self._places):
            await self._remove(name)
        if self._runner is not None:
            await self._runner.cleanup()
        self._executor.shutdown(cancel_futures=True)

    @property
    def dreams(self) -> int:
        """How many there are now, those without a browser, too."""
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
        raise PortError(f"Ports {ports[0]} to {ports[-1]} are all in use, expected a free one: give --port.")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        """Lets in who knows the token; a page of another site, which some browser shows, does not."""
        if request.path.lstrip("/") in OPEN:
            allowed = True
        elif self.token:
            allowed = hmac.compare_digest(request.query.get("token", ""), self.token)
        else:
            allowed = request.url.host in LOCAL  # another name for this address is an attack (DNS rebinding)
        origin = request.headers.get("Origin")
        if not allowed or (origin is not None and origin.partition("://")[2] != request.host):
            raise web.HTTPForbidden(text="Open the address that the program printed, with its token.")
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
        socket = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=20.0, compress=False)
        await socket.prepare(request)
        # In a task: the socket is read from the first moment on, so that one that closes is noticed.
        welcome = asyncio.create_task(self._welcome(request.query.get("dream", ""), socket))
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    raise BadMessageError("text expected")
                name = await welcome
                if name is not None:
                    await self._places[name].session.handle(message.data)
        except BadMessageError as error:
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=_short(f"Not understood: {error}"))
        finally:
            if not self._ready.is_set():
                welcome.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await welcome
            for name, place in self._places.items():
                if place.browser is socket:  # and no other window has taken the dream over
                    self._places[name] = place._replace(browser=None, left=time.monotonic())
                    await place.session.disconnect()
                    break
        return socket

    async def _welcome(self, name: str, socket: web.WebSocketResponse) -> str | None:
        """Shows a browser its dream, which has a name from then on; None if there is no room."""
        lock = asyncio.Lock()  # pictures and words in the order in which they are sent

        async def send(content: dict[str, Any] | bytes) -> None:
            async with lock:
                with contextlib.suppress(ConnectionError):
                    await (socket.send_bytes(content) if isinstance(content, bytes) else socket.send_json(content))

        if not self._ready.is_set():
            await send({"wait": COMPILING})
            await self._ready.wait()
        try:
            async with self._door:
                entered = await self._enter(name, socket)
        except Exception as error:
            await socket.close(code=WSCloseCode.INTERNAL_ERROR, message=_short(f"No dream can begin: {error}"))
            raise
        if entered is None:
            why = f"There are {self._settings.most} dreams already, the most. Try later."
            await socket.close(code=FULL, message=why.encode())
            return None
        await send({"dream": entered})
        await self._places[entered].session.connect(send)
        return entered

    async def _enter(self, name: str, socket: web.WebSocketResponse) -> str | None:
        """Gives a browser its old dream, or a new one; None if there is no room."""
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
        self._made += 1
        name = secrets.token_urlsafe(12)
        make = functools.partial(
            Session,
            self._dreamer,
            self._brain,
            self._episodes,
            self._executor,
            seed=self._settings.seed + self._made,
            recordings=self._settings.recordings,
            saved=self._settings.saved,
        )
        session = await asyncio.get_running_loop().run_in_executor(self._executor, make)
        self._places[name] = Place(session, socket, 0.0)
        return name

    async def _remove(self, name: str) -> None:
        await self._places.pop(name).session.close()

    async def _sweep(self) -> None:
        """Frees dreams whose browsers do not come back."""
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
    """A reason for closing: at most 123 bytes, as the protocol has it."""
    return text.encode()[:123].decode(errors="ignore").encode()
