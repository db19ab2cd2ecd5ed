"""Atari, `atari:GAME` and `atari100k:GAME` such as atari:pong, with the published settings of DreamerV3.

One step is four frames (multiplied by `env.action_repeat`); the observation is the pixelwise maximum of the last two.
An episode starts with up to 30 no-op frames and ends with the game or after 108,000 frames, but not with the loss of a
life.

    atari      all 18 actions; sticky actions: each frame repeats the previous action with probability 0.25
    atari100k  the game's minimal action set
"""

from typing import Any

import ale_py  # pyright: ignore[reportMissingImports]
import gymnasium
import numpy as np
from ale_py import roms  # pyright: ignore[reportMissingImports]
from gymnasium.spaces import Box, Dict, Discrete

from dreamerjax.config import EnvConfig
from dreamerjax.envs.names import closest_of, unknown
from dreamerjax.envs.pixels import KEY, STATE

SKIP = 4  # frames of one step
POOLED = 2  # the last frames of a step, of which the maximum is observed
NOOPS = 30  # frames at most at the start of an episode
LIMIT = 108_000  # frames of an episode, half an hour
TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}  # need a second player, which ALE does not provide
STICKY = 0.25  # probability that a frame repeats the previous action, in `atari`


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The environment of a game; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is no such game.
    """
    suite = config.id.partition(":")[0]
    if name not in _games():
        raise unknown(suite, name, closest(name))
    return AtariEnv(name, sticky=suite == "atari", picture=config.obs != "state", ram=config.obs in ("state", "both"))


def closest(name: str) -> str | None:
    """The game closest to a misspelled name, or None."""
    return closest_of(name.replace("-", "_"), _games())


class AtariEnv(gymnasium.Env):
    """One game; the observation is its screen, its 128 bytes of memory, or both."""

    render_mode = "rgb_array"

    def __init__(self, game: str, *, sticky: bool, picture: bool, ram: bool) -> None:
        """Loads the game.

        Args:
            game: its name, in lower case with underscores.
            sticky: the rules of `atari`, else those of `atari100k`.
            picture: whether the screen is observed.
            ram: whether the memory is observed.
        """
        self._game, self._sticky, self._picture, self._ram = game, sticky, picture, ram
        self._ale = self._loaded(seed=0)
        self._actions = self._ale.getLegalActionSet() if sticky else self._ale.getMinimalActionSet()
        self._frames = 0  # of the episode
        self._screen = np.zeros((*self._ale.getScreenDims(), 3), np.uint8)
        spaces: dict[str, gymnasium.Space] = {}
        if picture:
            spaces[KEY] = Box(0, 255, self._screen.shape, np.uint8)
        if ram:
            spaces[STATE] = Box(0, 255, (self._ale.getRAMSize(),), np.uint8)
        self.observation_space = Dict(spaces)
        self.action_space = Discrete(len(self._actions))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts a game with a random number of no-op frames."""
        super().reset(seed=seed)
        if seed is not None:
            self._ale = self._loaded(seed)
        self._ale.reset_game()
        for _ in range(self.np_random.integers(NOOPS + 1)):
            self._ale.act(ale_py.Action.NOOP)
            if self._ale.game_over():
                self._ale.reset_game()
        self._frames = 0
        self._screen = self._ale.getScreenRGB()
        return self._seen(), {}

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Four frames, or fewer at the end of an episode."""
        reward, screens = 0.0, []
        terminated = truncated = False
        for frame in range(SKIP):
            reward += self._ale.act(self._actions[action])
            self._frames += 1
            terminated = self._ale.game_over()
            truncated = not terminated and self._frames >= LIMIT
            if frame >= SKIP - POOLED or terminated or truncated:
                screens.append(self._ale.getScreenRGB())
            if terminated or truncated:
                break
        self._screen = np.max(screens, axis=0)
        return self._seen(), reward, terminated, truncated, {}

    def render(self) -> np.ndarray:
        """The newest observed screen, in full size."""
        return self._screen

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ale": self._ale.cloneState(include_rng=True)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._ale = self._loaded(seed=0)
        self._ale.restoreState(state["_ale"])

    def _seen(self) -> dict[str, Any]:
        seen = {KEY: self._screen} if self._picture else {}
        return {**seen, STATE: self._ale.getRAM()} if self._ram else seen

    def _loaded(self, seed: int) -> Any:
        ale = ale_py.ALEInterface()
        ale.setLoggerMode(ale_py.LoggerMode.Error)
        ale.setInt("random_seed", seed % 2**31)
        ale.setFloat("repeat_action_probability", STICKY if self._sticky else 0.0)
        ale.loadROM(roms.get_rom_path(self._game))
        return ale


def _games() -> list[str]:
    return [game for game in roms.get_all_rom_ids() if game not in TWO_PLAYERS]
