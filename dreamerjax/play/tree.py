"""A tree of what-ifs: one dream and the real environment beside it, in which one can go back and act otherwise."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from dreamerjax.envs import EnvError, StateError, VectorEnv
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play.brain import Brain, Sight, Thought
from dreamerjax.play.starts import Episode
from dreamerjax.types import Rows

MOST_MOMENTS = 2000  # that one tree remembers: some 5 KB each, and what a picture takes
FORGOTTEN = 200  # of the path that leads here, when there are too many


@dataclasses.dataclass(frozen=True)
class Real:
    """The real environment at a moment."""

    rows: Rows  # [1, ...] on arrival
    saved: bytes | None  # to go on from here; None: it cannot
    over: bool = False  # its episode had ended before: nothing moves any more


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """One moment of a dream."""

    number: int
    parent: int | None  # number of the moment before, which may be forgotten
    step: int  # since the dream began
    action: np.ndarray | None  # [1, A] that led here
    thought: Thought
    real: Real | None
    blind: int  # steps since the agent last saw what is real; 0: it saw it here


class Tree:
    """All moments of one dream since it began, and where we are. Not for several threads at once."""

    def __init__(self, dreamer: Dreamer, brain: Brain, *, seed: int) -> None:
        """Nothing is dreamed yet: `begin` first.

        Args:
            dreamer: who dreams.
            brain: its compiled functions.
            seed: of everything that is random here.
        """
        self.opened = True  # whether the agent sees the real environment from now on
        self.trouble = ""  # why there is no real environment
        self._dreamer, self._brain = dreamer, brain
        self._generator = np.random.default_rng(seed)
        self._moments: dict[int, Moment] = {}
        self._count = 0
        self._env: VectorEnv | None = None
        self._at: Moment | None = None  # where the environment stands; None: elsewhere
        try:
            self._env = dreamer.make_env(seed=seed)
        except EnvError as error:
            self.trouble = str(error)

    @property
    def action_names(self) -> list[str]:
        """See `VectorEnv.action_names`; empty where there is no environment."""
        return self._env.action_names() if self._env is not None else []

    @property
    def now(self) -> Moment:
        """Where we are."""
        return self._now

    @property
    def root(self) -> Moment:
        """The oldest moment that is remembered."""
        return next(iter(self._moments.values()))

    def __iter__(self) -> Iterator[Moment]:
        """All moments, parents before their children."""
        return iter(self._moments.values())

    def __len__(self) -> int:
        return len(self._moments)

    def begin(self, episode: Episode | None = None, t: int = 0) -> Moment:
        """Begins a new dream: at row t of an episode, or at a fresh start of the environment.

        Raises:
            EnvError: the environment misbehaves.
        """
        if episode is not None:
            t = max(0, min(t, len(episode.rows.reward) - 1))
            rows = jax.tree.map(lambda x: x[: t + 1], episode.rows)
            real = self._real_at(rows, episode.seed)
        elif self._env is not None:
            first = self._env.reset(seed=int(self._generator.integers(2**31)))
            rows, real = jax.tree.map(lambda x: x[None], first), self._saved(first)
        else:
            rows, real = None, None
        thought = self._brain.begin(rows, seed=int(self._generator.integers(2**31)))
        self._moments.clear()
        self._now = self._at = self._add(None, 0, None, thought, real, blind=0)
        return self._now

    def step(self, action: np.ndarray | None) -> Moment:
        """One step on from here, in the dream and in reality; a new branch where there was another one already.

        Args:
            action: [1, A]; None: what the agent would do.

        Raises:
            EnvError: the environment misbehaves.
        """
        here = self._now
        action = np.asarray(here.thought.action) if action is None else action
        real = self._real_step(here, action)
        sees = real is not None and not real.over
        sight = Sight(real.rows.obs, self.opened) if real is not None and sees else None
        thought = self._brain.step(here.thought.state, action, sight, self._key())
        if not sees:
            thought = dataclasses.replace(thought, surprise=np.float32(np.nan))
        blind = 0 if sees and self.opened else here.blind + 1
        self._now = self._add(here.number, here.step + 1, action, thought, real, blind=blind)
        if real is not None and not real.over:
            self._at = self._now
        self._forget()
        return self._now

    def go(self, number: int) -> Moment | None:
        """Goes to a moment; None, and we stay, if it is not remembered (any more)."""
        if number not in self._moments:
            return None
        self._now = self._moments[number]
        return self._now

    def picture(self, moment: Moment) -> np.ndarray | None:
        """What the real environment looks like at a moment, [height, width, channels] uint8; None: nothing to see.

        Raises:
            RenderError: it cannot be drawn.
        """
        real = moment.real
        if real is None:
            return None
        image = next((spec.name for spec in self._dreamer.spaces.obs if spec.is_image), None)
        if image is not None:
            return real.rows.obs[image][0]
        if self._env is None or not self._move_to(moment):
            return None
        return self._env.render()

    def close(self) -> None:
        """Frees the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _add(
        self,
        parent: int | None,
        step: int,
        action: np.ndarray | None,
        thought: Thought,
        real: Real | None,
        *,
        blind: int,
    ) -> Moment:
        moment = Moment(self._count, parent, step, action, thought, real, blind)
        self._moments[moment.number] = moment
        self._count += 1
        return moment

    def _forget(self) -> None:
        """Forgets the oldest moments, and the branches that leave from them."""
        while len(self._moments) > MOST_MOMENTS:
            path = list(self._path())
            # A later moment of our own path is the new root, and what does not come from it goes: many at a time.
            root = path[max(0, len(path) - 1 - FORGOTTEN)]
            kept = {root.number: root}
            for moment in self._moments.values():
                if moment.parent in kept:
                    kept[moment.number] = moment
            self._moments = kept

    def _path(self) -> Iterator[Moment]:
        """From now back to the root."""
        moment: Moment | None = self._now
        while moment is not None:
            yield moment
            moment = None if moment.parent is None else self._moments.get(moment.parent)

    def _key(self) -> np.ndarray:
        """A key of JAX's, made without JAX: that is quicker."""
        return self._generator.integers(2**32, size=2, dtype=np.uint32)

    # The real environment

    def _saved(self, rows: Rows) -> Real:
        assert self._env is not None
        return Real(rows, self._env.state())

    def _real_at(self, rows: Rows, seed: int | None) -> Real | None:
        """The environment where the last of these rows [T, 1, ...] was seen; None if it cannot be brought there."""
        if self._env is None:
            return None
        last = jax.tree.map(lambda x: x[-1], rows)
        vector = next((spec.name for spec in self._dreamer.spaces.obs if spec.is_vector), None)
        if seed is not None:
            self._env.reset(seed=seed)
            for action in rows.prev_action[1:]:
                self._env.step(action)
            return self._saved(last)
        self._env.reset()
        if vector is not None and self._env.place(last.obs[vector][0]):
            return self._saved(last)
        return None

    def _real_step(self, here: Moment, action: np.ndarray) -> Real | None:
        if here.real is None or self._env is None:
            return None
        too_long = here.step >= self._dreamer.config.eval.max_episode_steps
        if here.real.over or here.real.rows.is_last[0] or too_long:
            return dataclasses.replace(here.real, over=True)
        if not self._move_to(here):
            return None
        return self._saved(self._env.step(action))

    def _move_to(self, moment: Moment) -> bool:
        """Brings the environment to a moment; False if it cannot go back."""
        assert self._env is not None
        if moment.real is None:
            return False
        if self._at is not None and self._at.real is not None and self._at.real.rows is moment.real.rows:
            return True
        if moment.real.saved is None:
            return False
        try:
            self._env.load(moment.real.saved)
        except StateError:
            return False
        self._at = moment
        return True
