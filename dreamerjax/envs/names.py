"""Names of environments and of parts of spaces, and the errors for environments that a suite cannot make."""

import difflib
from collections.abc import Iterable
from typing import Any

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, UnknownEnvironmentError


def closest_of(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelled one, ignoring case; None if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # Among equally close names, difflib returns the alphabetically last: the newest version.
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def unknown(suite: str, name: str, meant: str | None) -> UnknownEnvironmentError:
    """The error for a name that a suite does not have."""
    advice = f" Did you mean `{suite}:{meant}`?" if meant else ""
    return UnknownEnvironmentError(f"{suite}:{name}: there is no such environment.{advice}")


def refuse_obs(config: EnvConfig, *refused: str, reason: str) -> None:
    """Checks that the suite supports `env.obs`.

    Raises:
        EnvError: it is one of `refused`; the message lists the supported values.
    """
    if config.obs in refused:
        offered = [choice for choice in ("auto", "state", "pixels", "both") if choice not in refused]
        raise EnvError(f"{config.id}: env.obs is {config.obs}, expected {' or '.join(offered)}: {reason}.")


def joined(path: str, key: Any) -> str:
    """The path of a part of a nested space: `arm.joints`."""
    return f"{path}.{key}" if path else str(key)


def brief(value: Any) -> str:
    """A value or a space in one line, for messages."""
    text = " ".join((repr if isinstance(value, str) else str)(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
