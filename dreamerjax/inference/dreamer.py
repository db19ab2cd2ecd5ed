"""A trained agent: acts, encodes episodes and dreams.

    agent = dreamerjax.load(dreamerjax.EXAMPLES / "cartpole")
    episode = agent.play(seed=0)                            # a real episode, greedy
    seen = agent.encode(episode)                            # latent states, values, ...: seen.value [T, 1], seen.kl
    dream = agent.dream(seen.states[20], horizon=30, copies=8)
    dream.obs["state"], dream.reward, dream.cont            # [H, 8, ...]
    dream = agent.dream(seen.states[20], actions=episode.actions[20:50])

Arrays are numpy's. The first axis is time, the second the dreams (or the one episode). `dreamerjax/agent/dream.py` has
the same as pure functions.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dreamerjax.agent import dream as dreams
from dreamerjax.agent.agent import Agent
from dreamerjax.agent.dream import Dream, Encoding, Reading
from dreamerjax.agent.policy import Policy, initial_policy_state, jit_policy
from dreamerjax.config import Config
from dreamerjax.envs import EnvError, VectorEnv, make_env
from dreamerjax.envs.frames import same_size
from dreamerjax.envs.serial import SerialVectorEnv
from dreamerjax.nets.rssm import repeat_latent
from dreamerjax.runs import checkpoint
from dreamerjax.runs.load import LoadedAgent, load_run
from dreamerjax.runs.run_folder import RunFolder
from dreamerjax.types import Array, Batch, LatentState, PRNGKey, Rows, Spaces

LONGEST = 1000  # default limit of a played episode in steps
BLOCK = 32  # lengths are rounded up to multiples of this, so that few programs are compiled

# (observations name -> [N, ...], key) -> actions [N, A], in JAX
Player = Callable[[dict[str, Array], PRNGKey], Array]


class Played(NamedTuple):
    """A real episode, or the beginning of one."""

    rows: Rows  # [T, 1, ...]
    # [T, height, width, 3] uint8 rendered by the environment, all of the first one's size; None if there are none.
    frames: np.ndarray | None

    def __len__(self) -> int:
        return len(self.rows.reward)

    @property
    def actions(self) -> np.ndarray:
        """[T - 1, 1, A]: `actions[t]` was taken in row t."""
        return self.rows.prev_action[1:]

    @property
    def ret(self) -> float:
        """The return: the sum of rewards."""
        return float(self.rows.reward.sum())


class Dreamer:
    """A trained agent.

    Attributes:
        loaded: the agent's run, settings, networks and parameters.
    """

    def __init__(self, loaded: LoadedAgent) -> None:
        """Takes the result of `load_run`; `dreamerjax.load` does both."""
        self.loaded = loaded

    @property
    def config(self) -> Config:
        """The settings of its run."""
        return self.loaded.config

    @property
    def spaces(self) -> Spaces:
        """The observations and actions."""
        return self.loaded.agent.spaces

    @property
    def title(self) -> str:
        """The name of its environment, for people: "cartpole", "cartpole from pixels"."""
        env = self.config.env
        return f"{env.name} from pixels" if env.obs == "pixels" else env.name

    def make_env(self, *, seed: int = 0) -> VectorEnv:
        """Makes one copy of the agent's environment.

        Raises:
            EnvError: it is not installed.
        """
        return make_env(dataclasses.replace(self.config.env, workers=0), num_envs=1, seed=seed)

    def play(
        self,
        env: VectorEnv | gymnasium.Env | None = None,
        *,
        policy: str | Player = "greedy",
        steps: int | None = None,
        seed: int = 0,
        frames: bool = False,
    ) -> Played:
        """Plays one episode in a real environment.

        Args:
            env: one environment with the agent's observations and actions; None: a new one.
            policy: "greedy", "sample", "random", or a function of observations [1, ...] and a key.
            steps: limit on the steps; None: 1,000, or `eval.max_episode_steps` if that is less.
            seed: of the environment's start, the latent states and the actions.
            frames: whether to render each step.

        Raises:
            EnvError: the environment is not installed, does not fit the agent, or fails.
            RenderError: `frames` is true, and the environment cannot be rendered.
        """
        steps = steps or min(LONGEST, self.config.eval.max_episode_steps)
        owned = env is None
        env = self._env_or_own(env, seed)
        try:
            state, key = initial_policy_state(self.loaded.agent, 1), jax.random.PRNGKey(seed)
            generator = np.random.default_rng(seed)
            act = None if callable(policy) or policy == "random" else _named_policy(self.loaded.agent, policy)
            rows, drawn = [env.reset(seed=seed)], []
            while True:
                if frames and (frame := env.render()) is not None:
                    drawn.append(frame)
                if len(rows) > steps or rows[-1].is_last.any():
                    break
                if act is not None:
                    state, action, key = act(self.loaded.state.params, state, rows[-1].obs, rows[-1].is_first, key)
                elif callable(policy):
                    key, own = jax.random.split(key)
                    action = policy(rows[-1].obs, own)  # pyright: ignore[reportArgumentType]  numpy arrays work
                else:
                    action = env.random_action(generator)
                rows.append(env.step(np.asarray(action)))
        finally:
            if owned:
                env.close()
        return Played(
            rows=jax.tree.map(lambda *steps: np.stack(steps), *rows),
            frames=np.stack(list(same_size(drawn))) if drawn else None,
        )

    def encode(self, episode: Played | Rows, *, seed: int = 0) -> Encoding:
        """Encodes rows [T, N, ...]: latent states and predictions for each.

        Returns:
            Arrays [T, N, ...]; `states[t]` can start a dream.
        """
        rows = episode.rows if isinstance(episode, Played) else episode
        length = len(rows.reward)
        padded = jax.tree.map(lambda x: np.pad(x, [(0, -length % BLOCK)] + [(0, 0)] * (x.ndim - 1)), rows)
        batch = Batch(**padded._asdict())
        encoding = _jit_encode(self.loaded.agent)(self._params, batch, jax.random.PRNGKey(seed), self._cont_discount)
        return _cut(encoding, length)

    def dream(
        self,
        start: LatentState,
        *,
        horizon: int | None = None,
        actions: np.ndarray | Player | None = None,
        copies: int = 1,
        seed: int = 0,
    ) -> Dream:
        """Dreams from given latent states.

        Args:
            start: one latent state, or N of them.
            horizon: H, steps; None: the number of actions, or 15.
            actions: [H, A] or [H, N, A], the same in all copies; or a function of the decoded observations [N, ...] and
                a key; None: sampled from the agent's policy.
            copies: dreams from each state.
            seed: of the latent states and of sampled actions.

        Returns:
            The dream: arrays [H, N * copies, ...], with the copies of a state next to each other.
        """
        count = start.stoch.shape[0] * copies
        given = None
        if actions is not None and not callable(actions):
            given = np.asarray(actions, np.float32)
            given = given[:, None] if given.ndim == 2 else given
            if given.ndim != 3 or given.shape[-1] != self.spaces.action_size:
                raise ValueError(
                    f"The actions have shape {np.shape(actions)}, expected [H, A] or [H, N, A] with A = "
                    f"{self.spaces.action_size}."
                )
            given = given[:horizon]
            given = np.repeat(given, copies if given.shape[1] > 1 else count, 1)
        horizon = horizon or (15 if given is None else len(given))
        if given is not None:
            horizon = min(horizon, len(given))
        rounded = horizon + -horizon % BLOCK
        if given is not None:
            given = np.pad(given, ((0, rounded - horizon), (0, 0), (0, 0)))
        run = _jit_dream(self.loaded.agent, rounded, actions if callable(actions) else None)
        start = repeat_latent(start, copies)
        return _cut(run(self._params, start, jax.random.PRNGKey(seed), given, self._cont_discount), horizon)

    def read(self, states: LatentState) -> Reading:
        """Predictions from latent states: observations, rewards, values, ..., arrays [N, ...]."""
        return jax.device_get(_jit_read(self.loaded.agent)(self._params, states, self._cont_discount))

    def look(self, state: LatentState, obs: dict[str, np.ndarray], *, seed: int = 0) -> tuple[LatentState, np.ndarray]:
        """Updates the states of N dreams with observations [N, ...]; returns them and the KL (surprise) [N] in nats."""
        return jax.device_get(_jit_look(self.loaded.agent)(self._params, state, obs, jax.random.PRNGKey(seed)))

    @property
    def _params(self) -> Any:
        return self.loaded.state.params

    @property
    def _cont_discount(self) -> Array:
        return self.loaded.state.knobs.cont_discount

    def _env_or_own(self, env: VectorEnv | gymnasium.Env | None, seed: int) -> VectorEnv:
        if env is None:
            return self.make_env(seed=seed)
        if isinstance(env, gymnasium.Env):
            env = SerialVectorEnv(self.config.env, num_envs=1, seed=seed, envs=[env])
        if (env.spaces, env.num_envs) != (self.spaces, 1):
            raise EnvError(
                f"The environment has {env.num_envs} copies with {env.spaces}, expected 1 with the agent's "
                f"{self.spaces}."
            )
        return env


def load(run: str | Path, *, step: int | None = None) -> Dreamer:
    """Loads the agent of a run from its newest undamaged checkpoint.

    Args:
        run: a run folder, or a folder of `dreamerjax.EXAMPLES`.
        step: environment steps of another checkpoint; `checkpoint_steps` lists them.

    Raises:
        RunFolderError: `run` is not a run folder.
        CheckpointError: it has no undamaged checkpoint, or one of another version or family.
    """
    return Dreamer(load_run(Path(run).expanduser(), step=step))


def checkpoint_steps(run: str | Path) -> list[int]:
    """The environment steps of a run's checkpoints, in ascending order."""
    return checkpoint.steps(RunFolder(Path(run).expanduser()).checkpoints)


def _cut(reading: Any, length: int) -> Any:
    """The first `length` steps, as numpy arrays."""
    return jax.tree.map(lambda x: x[:length], jax.device_get(reading))


# Programs are compiled once for each agent (and length).


def _named_policy(agent: Agent, policy: str) -> Policy:
    if policy not in ("greedy", "sample"):
        raise ValueError(f'policy is {policy!r}, expected "greedy", "sample", "random" or a function.')
    return jit_policy(agent, greedy=policy == "greedy")


@functools.lru_cache(maxsize=8)
def _jit_encode(agent: Agent) -> Any:
    return jax.jit(
        lambda params, batch, key, discount: dreams.encode(agent, params, batch, key, cont_discount=discount)
    )


@functools.lru_cache(maxsize=8)
def _jit_read(agent: Agent) -> Any:
    return jax.jit(lambda params, states, discount: dreams.read(agent, params, states, cont_discount=discount))


@functools.lru_cache(maxsize=8)
def _jit_look(agent: Agent) -> Any:
    return jax.jit(functools.partial(dreams.look, agent))


@functools.lru_cache(maxsize=32)
def _jit_dream(agent: Agent, horizon: int, player: Player | None) -> Any:
    def run(params: Any, start: LatentState, key: PRNGKey, actions: Array | None, discount: Array) -> Dream:
        def act(state: LatentState, key: PRNGKey) -> Array:
            assert player is not None
            return jnp.asarray(player(dreams.decode(agent, params, state), key))

        chosen = act if player is not None else actions
        return dreams.dream(agent, params, start, key, horizon=horizon, cont_discount=discount, actions=chosen)

    return jax.jit(run)
