"""POPGym, `popgym:NAME` such as popgym:RepeatPreviousEasy: small tasks that need a memory."""

import gymnasium
import popgym  # noqa: F401  # registers the environments  # pyright: ignore[reportMissingImports]

from dreamerjax.config import EnvConfig
from dreamerjax.envs.names import closest_of, refuse_obs, unknown


def make(name: str, config: EnvConfig) -> gymnasium.Env:
    """The environment of a name, or of its whole ID, such as popgym-RepeatPreviousEasy-v0; see `Suite`.

    Raises:
        UnknownEnvironmentError: there is none of that name.
        EnvError: pixels are asked for; they would show what is to be remembered.
    """
    short = _short(name)
    if short not in _ids():
        raise unknown("popgym", name, closest(name))
    refuse_obs(config, "pixels", "both", reason="a picture would show what is to be remembered")
    return gymnasium.make(_ids()[short], disable_env_checker=True)


def closest(name: str) -> str | None:
    """The name that was probably meant, or None."""
    return closest_of(_short(name), _ids())


def _short(name: str) -> str:
    return name.removeprefix("popgym-").removesuffix("-v0")


def _ids() -> dict[str, str]:
    """Name -> registered ID."""
    return {_short(known): known for known in gymnasium.registry if known.startswith("popgym-")}
