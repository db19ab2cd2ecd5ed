"""The session of one browser: its dream, who acts, speed and recording."""

import asyncio
import datetime
import itertools
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from dreamerjax.envs import EnvError, RenderError
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play import messages, recording
from dreamerjax.play.compiled_agent import CompiledAgent
from dreamerjax.play.episodes import StartEpisode
from dreamerjax.play.labels import labels_for
from dreamerjax.play.messages import BadMessageError, Message
from dreamerjax.play.pictures import described, encoded, pack, strip
from dreamerjax.play.tree import MAX_MOMENTS, Moment, Tree
from dreamerjax.runtime.error_text import one_line
from dreamerjax.viz.renderer import ObservationRenderer

END_BELOW = 0.5  # a dream ends when its continue probability falls below this
MAX_UNDRAWN = 2  # moments sent and not drawn yet; further ones wait
DEFAULT_SPEED = {"agent": 20.0, "you": 10.0}  # steps per second

Send = Callable[[dict[str, Any] | bytes], Awaitable[None]]
Saved = Callable[[Sequence[Path]], None]
_numbers = itertools.count(1)


class Session:
    """Runs on the event loop; slow work (dreaming, drawing, writing) runs in the executor."""

    def __init__(
        self,
        dreamer: Dreamer,
        compiled: CompiledAgent,
        episodes: Sequence[StartEpisode],
        executor: Executor,
        *,
        seed: int,
        recordings: Path,
        saved: Saved,
    ) -> None:
        """Starts a dream, which is paused until `connect`. Slow: call it in the executor.

        Args:
            dreamer: the agent.
            compiled: its compiled functions.
            episodes: to start from.
            executor: for slow work.
            seed: of environment and dreams.
            recordings: folder for recordings.
            saved: called with the files of each recording.
        """
        self._dreamer, self._episodes, self._executor, self._recordings = dreamer, episodes, executor, recordings
        self._saved = saved
        self._tree = Tree(dreamer, compiled, seed=seed)
        self._renderer = ObservationRenderer(dreamer.config.env, dreamer.spaces)
        self._tree.begin()
        self._busy = threading.Lock()  # one step at a time
        self._discrete = all(spec.kind == "discrete" for spec in dreamer.spaces.actions)
        self._driver, self._running, self._speeds = "agent", True, dict(DEFAULT_SPEED)
        self._held: np.ndarray | None = None
        self._recorded: list[Moment] | None = None
        self._pictures: list[tuple[bytes, ...]] = []  # of each recorded moment
        self._no_image, self._notes = set[str](), list[str]()  # reasons for missing images: all, and not yet sent
        self._send: Send | None = None
        self._clock: asyncio.Task | None = None
        self._changed = asyncio.Event()
        self._undrawn_moments = 0  # sent and not drawn yet
        self._drawn = asyncio.Event()

    async def connect(self, send: Send) -> None:
        """Connects a browser: sends it everything, and continues the dream."""
        await self.disconnect()
        self._send, self._undrawn_moments = send, 0
        await send(self._hello())
        await self._show()
        self._clock = asyncio.create_task(self._tick())

    async def disconnect(self) -> None:
        """Disconnects the browser: pauses the dream and keeps its state."""
        self._send = None
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
            self._clock = None

    async def close(self) -> None:
        """Saves a running recording, and closes the environments."""
        await self.disconnect()
        await self._record(on=False)
        await self._do(self._free)

    async def handle(self, text: str) -> None:
        """Handles a message of the browser.

        Raises:
            BadMessageError: the message is invalid.
        """
        message = messages.parse(text)
        try:
            await self._dispatch(message)
        except EnvError as error:
            await self._send_text(note=str(error))
        self._changed.set()

    async def _dispatch(self, message: Message) -> None:
        match message:
            case messages.Begin():
                await self._begin(message)
            case messages.Driver():
                self._driver, self._running = message.who, True
                await self._show()
            case messages.Hold():
                self._held = None if message.action is None else self._as_action(message.action)
                if self._held is not None:
                    self._driver, self._running = "you", True
            case messages.Run():
                self._running = message.on
                await self._show()
            case messages.Speed():
                self._speeds[self._driver] = message.steps
                await self._show()
            case messages.Step():
                self._running = False
                given = None if message.action is None else self._as_action(message.action)
                await self._advance(given if given is not None else self._chosen())
            case messages.Go():
                self._running = False
                # In the executor: waits for a running step.
                if await self._do(lambda: self._tree.go(message.to)) is None:
                    await self._send_text(note=f"That moment was deleted: only the newest {MAX_MOMENTS:,} are kept.")
                await self._show()
            case messages.Observe():
                was_ended, self._tree.observing = self._ended, message.on
                if was_ended and not self._ended and self._driver == "agent":
                    self._running = True  # the dream continues after the real episode
                await self._show()
            case messages.Drawn():
                self._undrawn_moments = max(0, self._undrawn_moments - 1)
                self._drawn.set()
            case messages.Record():
                await self._record(on=message.on)

    # Time

    async def _tick(self) -> None:
        """Makes steps at the set speed while the dream runs and the browser keeps up."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._changed.clear()
            if not self._moves():
                await self._changed.wait()
                due = loop.time()
                continue
            await asyncio.sleep(due - loop.time())
            while self._undrawn_moments >= MAX_UNDRAWN:
                self._drawn.clear()
                await self._drawn.wait()
            if not self._moves():
                continue
            # A slow machine does not catch up.
            pause = 1 / self._speeds[self._driver]
            due = max(due + pause, loop.time() - pause)
            try:
                await self._advance(self._chosen())
            except EnvError as error:
                self._running = False
                await self._send_text(note=str(error))

    def _moves(self) -> bool:
        """Whether steps are made: not paused, not ended, and the driver acts."""
        return self._running and not self._ended and (self._driver == "agent" or self._chosen() is not None)

    @property
    def _ended(self) -> bool:
        """Whether the dream, or the real episode that the agent observes, has ended. Only `Step` continues then."""
        now = self._tree.now
        real_ended = now.real is not None and bool(now.real.over or now.real.rows.is_last[0])
        return bool(now.output.cont < END_BELOW) or (self._tree.observing and real_ended)

    def _chosen(self) -> np.ndarray | None:
        """The user's action; None: the agent acts, or no key is held."""
        if self._driver == "agent":
            return None
        if self._held is None and not self._discrete:
            return np.zeros((1, self._dreamer.spaces.action_size), np.float32)
        return self._held

    async def _advance(self, action: np.ndarray | None) -> None:
        await self._do(lambda: self._tree.step(action))
        if self._ended:
            self._running, self._held = False, None
        await self._show(new=True)

    async def _begin(self, message: messages.Begin) -> None:
        episode = None
        if message.episode is not None:
            if message.episode >= len(self._episodes):
                raise BadMessageError(f"episode: {message.episode} is not one of {len(self._episodes)}")
            episode = self._episodes[message.episode]
        self._running = self._driver == "agent"
        await self._do(lambda: self._tree.begin(episode, message.step))
        await self._show(new=True)

    # Messages to the browser

    async def _show(self, *, new: bool = False) -> None:
        """Sends the current moment with its images."""
        send = self._send
        if send is None:
            return
        packed = await self._do(lambda: self._packed(new=new))
        self._undrawn_moments += 1
        await send(packed)
        while self._notes:
            await self._send_text(note=self._notes.pop(0))

    def _packed(self, *, new: bool) -> bytes:
        moment = self._tree.now
        images = lambda: self._renderer.draw(moment.output.obs), lambda: self._tree.picture(moment)
        pictures = tuple(map(self._picture, images))
        if new and self._recorded is not None and len(self._recorded) < recording.MAX_MOMENTS:
            self._recorded.append(moment)
            self._pictures.append(pictures)
        header = {
            **described(moment),
            "root": self._tree.root.number,
            "driver": self._driver,
            "running": self._running,
            "speed": self._speeds[self._driver],
            "observing": self._tree.observing,
            "recording": self._recorded is not None,
        }
        return pack(header, *pictures)

    def _picture(self, draw: Callable[[], np.ndarray | None]) -> bytes:
        """An encoded image; empty if it cannot be drawn, which is reported once."""
        try:
            return encoded(draw())
        except RenderError as error:
            why = one_line(error)
            if why not in self._no_image:
                self._no_image.add(why)
                self._notes.append(f"No image: {why}")
            return b""

    def _hello(self) -> dict[str, Any]:
        """The first message to a page."""
        spaces, config = self._dreamer.spaces, self._dreamer.config
        return {
            "hello": self._dreamer.title,
            "steps_learned": self._dreamer.loaded.env_steps,
            "actions": [spec._asdict() for spec in spaces.actions],
            **labels_for(config.env.id, self._tree.action_names, spaces.action_size),
            "latent": [config.agent.model.groups, config.agent.model.classes],
            "draws": self._renderer.can_draw,
            "pictures": any(spec.is_image for spec in spaces.obs),
            "trouble": self._tree.trouble,
            "episodes": [{"title": one.title, "steps": len(one.rows.reward)} for one in self._episodes],
            "tree": [[one.number, one.parent, one.step, *strip(one).values()] for one in self._tree],
        }

    async def _send_text(self, **content: Any) -> None:
        if self._send is not None:
            await self._send(content)

    # Recording

    async def _record(self, *, on: bool) -> None:
        if on:
            self._recorded, self._pictures = [], []
            await self._show(new=True)
            return
        recorded, pictures, self._recorded, self._pictures = self._recorded, self._pictures, None, []
        await self._show()
        if not recorded:
            return
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = f"{self._dreamer.config.env.name.replace(':', '-').replace('/', '-')}-{stamp}-{next(_numbers)}"
        speed = self._speeds[self._driver]
        try:
            files = await self._do(lambda: recording.save(self._recordings, name, recorded, pictures, speed=speed))
        except OSError as error:
            await self._send_text(note=f"The recording could not be saved: {error}")
            return
        self._saved(files)
        await self._send_text(saved=[file.name for file in files], folder=str(self._recordings))

    # In the executor

    async def _do(self, work: Callable[[], Any]) -> Any:
        def alone() -> Any:
            with self._busy:
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._executor, alone)

    def _free(self) -> None:
        self._tree.close()
        self._renderer.close()

    def _as_action(self, numbers: Sequence[float]) -> np.ndarray:
        size = self._dreamer.spaces.action_size
        if len(numbers) != size:
            raise BadMessageError(f"action: {len(numbers)} numbers, expected {size}")
        return np.array([numbers], np.float32)
