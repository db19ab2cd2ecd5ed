"""Names of environments and of their parts, and what the suites say of those that they cannot make."""

import difflib
from collections.abc import Iterable
from typing import Any

from dreamerjax.config import EnvConfig
from dreamerjax.envs import EnvError, UnknownEnvironmentError


def closest_of(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that was probably meant, whatever its capitals; or None."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    # Of equally close ones the last in the alphabet comes first, which is the newest version.
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def unknown(suite: str, name: str, meant: str | None) -> UnknownEnvironmentError:
    """The error of a name that a suite does not have."""
    advice = f" Did you mean `{suite}:{meant}`?" if meant else ""
    return UnknownEnvironmentError(f"{suite}:{name}: there is no such environment.{advice}")


def refuse_obs(config: EnvConfig, *refused: str, reason: str) -> None:
    """Checks that `env.obs` is something that the suite can show.

    Raises:
        EnvError: it is one of those refused; the message says what else there is.
    """
    if config.obs in refused:
        offered = [choice for choice in ("auto", "state", "pixels", "both") if choice not in refused]
        raise EnvError(f"{config.id}: env.obs is {config.obs}, expected {' or '.join(offered)}: {reason}.")


def joined(path: str, key: Any) -> str:
    """The name of a part of a part: `arm.joints`."""
    return f"{path}.{key}" if path else str(key)


def brief(value: Any) -> str:
    """A value or a space in one line, for messages."""
    text = " ".join((repr if isinstance(value, str) else str)(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
