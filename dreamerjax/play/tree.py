"""A tree of moments: a dream and the real environment; the user can go back and take another action."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from dreamerjax.envs import EnvError, StateError, VectorEnv
from dreamerjax.inference.dreamer import Dreamer
from dreamerjax.play.compiled_agent import CompiledAgent, RealObservation, StepOutput
from dreamerjax.play.episodes import StartEpisode
from dreamerjax.types import Rows

MAX_MOMENTS = 2000  # kept in a tree: about 5 KB each, plus images
KEPT_PATH = 200  # moments of the current path that are kept when there are too many


@dataclasses.dataclass(frozen=True)
class RealState:
    """The real environment at a moment."""

    rows: Rows  # [1, ...] on arrival
    saved: bytes | None  # the environment's state; None: it cannot be saved
    over: bool = False  # the episode ended at an earlier moment


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """One moment of a dream."""

    number: int
    parent: int | None  # number of the previous moment, which may be deleted
    step: int  # since the start of the dream
    action: np.ndarray | None  # [1, A] that led here
    output: StepOutput
    real: RealState | None
    blind: int  # steps since the agent's last real observation; 0: it has one here


class Tree:
    """All moments of one dream, and the current one. Not thread-safe."""

    def __init__(self, dreamer: Dreamer, compiled: CompiledAgent, *, seed: int) -> None:
        """Creates an empty tree: call `begin` next.

        Args:
            dreamer: the agent.
            compiled: its compiled functions.
            seed: of environment and dreams.
        """
        self.observing = True  # whether the agent observes the real environment from now on
        self.trouble = ""  # why there is no real environment
        self._dreamer, self._compiled = dreamer, compiled
        self._generator = np.random.default_rng(seed)
        self._moments: dict[int, Moment] = {}
        self._count = 0
        self._env: VectorEnv | None = None
        self._at: Moment | None = None  # the moment that the environment is in; None: unknown
        try:
            self._env = dreamer.make_env(seed=seed)
        except EnvError as error:
            self.trouble = str(error)

    @property
    def action_names(self) -> list[str]:
        """See `VectorEnv.action_names`; empty without an environment."""
        return self._env.action_names() if self._env is not None else []

    @property
    def now(self) -> Moment:
        """The current moment."""
        return self._now

    @property
    def root(self) -> Moment:
        """The oldest moment that is kept."""
        return next(iter(self._moments.values()))

    def __iter__(self) -> Iterator[Moment]:
        """All moments, parents before their children."""
        return iter(self._moments.values())

    def __len__(self) -> int:
        return len(self._moments)

    def begin(self, episode: StartEpisode | None = None, t: int = 0) -> Moment:
        """Starts a new dream: at row t of an episode, or at a reset of the environment.

        Raises:
            EnvError: the environment fails.
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
        output = self._compiled.begin(rows, seed=int(self._generator.integers(2**31)))
        self._moments.clear()
        self._now = self._at = self._add(None, 0, None, output, real, blind=0)
        return self._now

    def step(self, action: np.ndarray | None) -> Moment:
        """Makes one step in the dream and the real environment; adds a branch if the moment has a child already.

        Args:
            action: [1, A]; None: the agent's action.

        Raises:
            EnvError: the environment fails.
        """
        here = self._now
        action = np.asarray(here.output.action) if action is None else action
        real = self._real_step(here, action)
        sees = real is not None and not real.over
        observed = RealObservation(real.rows.obs, self.observing) if real is not None and sees else None
        output = self._compiled.step(here.output.state, action, observed, self._key())
        if not sees:
            output = dataclasses.replace(output, surprise=np.float32(np.nan))
        blind = 0 if sees and self.observing else here.blind + 1
        self._now = self._add(here.number, here.step + 1, action, output, real, blind=blind)
        if real is not None and not real.over:
            self._at = self._now
        self._prune()
        return self._now

    def go(self, number: int) -> Moment | None:
        """Goes to a moment; returns None and stays if it does not exist or was deleted."""
        if number not in self._moments:
            return None
        self._now = self._moments[number]
        return self._now

    def picture(self, moment: Moment) -> np.ndarray | None:
        """An image of the real environment at a moment, [height, width, channels] uint8; None: no image.

        Raises:
            RenderError: the environment cannot be rendered.
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
        """Closes the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _add(
        self,
        parent: int | None,
        step: int,
        action: np.ndarray | None,
        output: StepOutput,
        real: RealState | None,
        *,
        blind: int,
    ) -> Moment:
        moment = Moment(self._count, parent, step, action, output, real, blind)
        self._moments[moment.number] = moment
        self._count += 1
        return moment

    def _prune(self) -> None:
        """Deletes the oldest moments and the branches that start at them."""
        while len(self._moments) > MAX_MOMENTS:
            path = list(self._path())
            # A later moment of the current path becomes the root; all others but its descendants are deleted.
            root = path[max(0, len(path) - 1 - KEPT_PATH)]
            kept = {root.number: root}
            for moment in self._moments.values():
                if moment.parent in kept:
                    kept[moment.number] = moment
            self._moments = kept

    def _path(self) -> Iterator[Moment]:
        """From the current moment back to the root."""
        moment: Moment | None = self._now
        while moment is not None:
            yield moment
            moment = None if moment.parent is None else self._moments.get(moment.parent)

    def _key(self) -> np.ndarray:
        """A PRNG key for JAX, made with numpy because that is faster."""
        return self._generator.integers(2**32, size=2, dtype=np.uint32)

    # The real environment

    def _saved(self, rows: Rows) -> RealState:
        assert self._env is not None
        return RealState(rows, self._env.state())

    def _real_at(self, rows: Rows, seed: int | None) -> RealState | None:
        """Brings the environment to the last of these rows [T, 1, ...]; None if that is impossible."""
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

    def _real_step(self, here: Moment, action: np.ndarray) -> RealState | None:
        if here.real is None or self._env is None:
            return None
        too_long = here.step >= self._dreamer.config.eval.max_episode_steps
        if here.real.over or here.real.rows.is_last[0] or too_long:
            return dataclasses.replace(here.real, over=True)
        if not self._move_to(here):
            return None
        return self._saved(self._env.step(action))

    def _move_to(self, moment: Moment) -> bool:
        """Brings the environment to a moment; False if that is impossible."""
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
