"""Atari, `atari:GAME` and `atari100k:GAME` such as atari:pong, as DreamerV3 was published with it.

One step is four frames (`env.action_repeat` would come on top), seen as the brighter of the last two, pixel by pixel.
An episode starts with up to 30 frames of doing nothing, ends with the game or after 108,000 frames, never with a life.

    atari      all 18 actions; a fourth of the frames repeat the action before, whatever is chosen
    atari100k  the actions that the game knows
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
POOLED = 2  # of them, the last, that are seen
NOOPS = 30
LIMIT = 108_000  # frames of an episode, half an hour
TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}  # there is nobody else: ALE cannot play them
STICKY = 0.25  # chance of a frame to repeat the action before, in `atari`


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The environment of a game; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is no such game.
    """
    family = config.id.partition(":")[0]
    if name not in _games():
        raise unknown(family, name, closest(name))
    return AtariEnv(name, sticky=family == "atari", picture=config.obs != "state", ram=config.obs in ("state", "both"))


def closest(name: str) -> str | None:
    """The game that was probably meant, or None."""
    return closest_of(name.replace("-", "_"), _games())


class AtariEnv(gymnasium.Env):
    """One game, seen on its screen, in its 128 bytes of memory, or both."""

    render_mode = "rgb_array"

    def __init__(self, game: str, *, sticky: bool, picture: bool, ram: bool) -> None:
        """Loads the game.

        Args:
            game: its name, in small letters with underscores.
            sticky: the rules of `atari`, else those of `atari100k`.
            picture: whether the screen is seen.
            ram: whether the memory is seen.
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
        """Starts a game, and does nothing for a while."""
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
        """Four frames, or less at the end of an episode."""
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
        """What was seen last, in full size."""
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
