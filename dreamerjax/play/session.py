"""One browser's dream: who is at the wheel, how fast time goes, what is recorded."""

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
from dreamerjax.play.brain import Brain
from dreamerjax.play.messages import BadMessageError, Message
from dreamerjax.play.pictures import described, encoded, pack, strip
from dreamerjax.play.starts import Episode
from dreamerjax.play.tree import Moment, Tree
from dreamerjax.play.words import words_for
from dreamerjax.runtime.error_text import one_line
from dreamerjax.viz.scene import Scene

OVER = 0.5  # a dream ends where its probability to go on falls below this
AHEAD = 2  # moments on their way to a browser: the next one waits until one of them is drawn
USUAL_SPEED = {"agent": 20.0, "you": 10.0}  # steps a second: people need time to think

Send = Callable[[dict[str, Any] | bytes], Awaitable[None]]
Saved = Callable[[Sequence[Path]], None]
_numbers = itertools.count(1)


class Session:
    """Lives on the event loop; what takes time (dreaming, drawing, writing) happens in the executor."""

    def __init__(
        self,
        dreamer: Dreamer,
        brain: Brain,
        episodes: Sequence[Episode],
        executor: Executor,
        *,
        seed: int,
        recordings: Path,
        saved: Saved,
    ) -> None:
        """Begins a dream, which stands still before `connect`. To be made in the executor: it takes a moment.

        Args:
            dreamer: who dreams.
            brain: its compiled functions.
            episodes: to begin from.
            executor: where the work is done.
            seed: of everything that is random here.
            recordings: the folder for them.
            saved: is told the files of each recording.
        """
        self._dreamer, self._episodes, self._executor, self._recordings = dreamer, episodes, executor, recordings
        self._saved = saved
        self._tree = Tree(dreamer, brain, seed=seed)
        self._scene = Scene(dreamer.config.env, dreamer.spaces)
        self._tree.begin()
        self._busy = threading.Lock()  # one step at a time, whoever asks
        self._discrete = all(spec.kind == "discrete" for spec in dreamer.spaces.actions)
        self._wheel, self._running, self._speeds = "agent", True, dict(USUAL_SPEED)
        self._held: np.ndarray | None = None
        self._recorded: list[Moment] | None = None
        self._pictures: list[tuple[bytes, ...]] = []  # of each recorded moment, as they were shown
        self._undrawn, self._to_tell = set[str](), list[str]()  # why there are no pictures: all reasons, and new ones
        self._send: Send | None = None
        self._clock: asyncio.Task | None = None
        self._changed = asyncio.Event()
        self._unseen = 0  # moments that were sent and are not drawn yet
        self._drawn = asyncio.Event()

    async def connect(self, send: Send) -> None:
        """A browser is there (again): shows it everything, and lets time go on."""
        await self.disconnect()
        self._send, self._unseen = send, 0
        await send(self._hello())
        await self._show()
        self._clock = asyncio.create_task(self._tick())

    async def disconnect(self) -> None:
        """The browser has gone: time stops, and everything stays."""
        self._send = None
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
            self._clock = None

    async def close(self) -> None:
        """Saves what was being recorded, and frees everything."""
        await self.disconnect()
        await self._record(on=False)
        await self._do(self._free)

    async def handle(self, text: str) -> None:
        """Does what a browser asks for.

        Raises:
            BadMessageError: it cannot be done.
        """
        message = messages.parse(text)
        try:
            await self._obey(message)
        except EnvError as error:
            await self._tell(note=str(error))
        self._changed.set()

    async def _obey(self, message: Message) -> None:
        match message:
            case messages.Begin():
                await self._begin(message)
            case messages.Wheel():
                self._wheel, self._running = message.who, True
                await self._show()
            case messages.Hold():
                self._held = None if message.action is None else self._as_action(message.action)
                if self._held is not None:
                    self._wheel, self._running = "you", True
            case messages.Run():
                self._running = message.on
                await self._show()
            case messages.Speed():
                self._speeds[self._wheel] = message.steps
                await self._show()
            case messages.Step():
                self._running = False
                given = None if message.action is None else self._as_action(message.action)
                await self._advance(given if given is not None else self._chosen())
            case messages.Go():
                self._running = False
                # Not on the event loop: a step that is under way ends first.
                if await self._do(lambda: self._tree.go(message.to)) is None:
                    await self._tell(note="That moment is forgotten: only the last few thousand are remembered.")
                await self._show()
            case messages.Eyes():
                was_ended, self._tree.opened = self._ended, message.opened
                if was_ended and not self._ended and self._wheel == "agent":
                    self._running = True  # it dreams on without reality
                await self._show()
            case messages.Seen():
                self._unseen = max(0, self._unseen - 1)
                self._drawn.set()
            case messages.Record():
                await self._record(on=message.on)

    # Time

    async def _tick(self) -> None:
        """Lets time go on, while it runs, somebody acts, and the browser keeps up."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._changed.clear()
            if not self._moves():
                await self._changed.wait()
                due = loop.time()
                continue
            await asyncio.sleep(due - loop.time())
            while self._unseen >= AHEAD:
                self._drawn.clear()
                await self._drawn.wait()
            if not self._moves():  # any more
                continue
            # A machine that is too slow does not try to catch up.
            pause = 1 / self._speeds[self._wheel]
            due = max(due + pause, loop.time() - pause)
            try:
                await self._advance(self._chosen())
            except EnvError as error:
                self._running = False
                await self._tell(note=str(error))

    def _moves(self) -> bool:
        """Whether time goes on: it runs, nothing has ended, and whoever is at the wheel acts."""
        return self._running and not self._ended and (self._wheel == "agent" or self._chosen() is not None)

    @property
    def _ended(self) -> bool:
        """Whether the dream has ended, or the agent looks at a reality that has; `Step` alone goes on beyond."""
        now = self._tree.now
        real_ended = now.real is not None and bool(now.real.over or now.real.rows.is_last[0])
        return bool(now.thought.cont < OVER) or (self._tree.opened and real_ended)

    def _chosen(self) -> np.ndarray | None:
        """The action of whoever is at the wheel; None: the agent's, or that no key is held."""
        if self._wheel == "agent":
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
        self._running = self._wheel == "agent"
        await self._do(lambda: self._tree.begin(episode, message.step))
        await self._show(new=True)

    # What the browser sees

    async def _show(self, *, new: bool = False) -> None:
        """Sends the moment in which we are, with its pictures."""
        send = self._send
        if send is None:
            return
        packed = await self._do(lambda: self._packed(new=new))
        self._unseen += 1
        await send(packed)
        while self._to_tell:
            await self._tell(note=self._to_tell.pop(0))

    def _packed(self, *, new: bool) -> bytes:
        moment = self._tree.now
        draws = lambda: self._scene.draw(moment.thought.obs), lambda: self._tree.picture(moment)
        pictures = tuple(map(self._picture, draws))
        if new and self._recorded is not None and len(self._recorded) < recording.LONGEST:
            self._recorded.append(moment)
            self._pictures.append(pictures)
        header = {
            **described(moment),
            "root": self._tree.root.number,
            "wheel": self._wheel,
            "running": self._running,
            "speed": self._speeds[self._wheel],
            "eyes": self._tree.opened,
            "recording": self._recorded is not None,
        }
        return pack(header, *pictures)

    def _picture(self, draw: Callable[[], np.ndarray | None]) -> bytes:
        """A picture for the browser; nothing if it cannot be drawn, which is told once."""
        try:
            return encoded(draw())
        except RenderError as error:
            why = one_line(error)
            if why not in self._undrawn:
                self._undrawn.add(why)
                self._to_tell.append(f"No picture: {why}")
            return b""

    def _hello(self) -> dict[str, Any]:
        """What a page must know before it shows anything."""
        spaces, config = self._dreamer.spaces, self._dreamer.config
        return {
            "hello": self._dreamer.title,
            "steps_learned": self._dreamer.loaded.env_steps,
            "actions": [spec._asdict() for spec in spaces.actions],
            **words_for(config.env.id, self._tree.action_names, spaces.action_size),
            "latent": [config.agent.model.groups, config.agent.model.classes],
            "draws": self._scene.draws,
            "pictures": any(spec.is_image for spec in spaces.obs),
            "trouble": self._tree.trouble,
            "episodes": [{"title": one.title, "steps": len(one.rows.reward)} for one in self._episodes],
            "tree": [[one.number, one.parent, one.step, *strip(one).values()] for one in self._tree],
        }

    async def _tell(self, **content: Any) -> None:
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
        speed = self._speeds[self._wheel]
        try:
            files = await self._do(lambda: recording.save(self._recordings, name, recorded, pictures, speed=speed))
        except OSError as error:
            await self._tell(note=f"The recording could not be saved: {error}")
            return
        self._saved(files)
        await self._tell(saved=[file.name for file in files], folder=str(self._recordings))

    # In the executor

    async def _do(self, work: Callable[[], Any]) -> Any:
        def alone() -> Any:
            with self._busy:
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._executor, alone)

    def _free(self) -> None:
        self._tree.close()
        self._scene.close()

    def _as_action(self, numbers: Sequence[float]) -> np.ndarray:
        size = self._dreamer.spaces.action_size
        if len(numbers) != size:
            raise BadMessageError(f"action: {len(numbers)} numbers, expected {size}")
        return np.array([numbers], np.float32)
