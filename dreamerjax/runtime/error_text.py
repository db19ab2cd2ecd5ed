"""Converts errors to one line of text, for failures that are reported but not raised."""

import re

from dreamerjax.config import ConfigError
from dreamerjax.envs import EnvError

LONGEST = 400  # characters
USER_ERRORS = (ConfigError, EnvError, OSError)  # their messages do not need the error's type


def one_line(error: BaseException) -> str:
    """The first line of an error's message, preceded by its type unless it is one of `USER_ERRORS`."""
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    message = next(filter(None, lines), "")
    kind = type(error).__name__
    text = message if isinstance(error, USER_ERRORS) and message else f"{kind}: {message}" if message else kind
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def without_numbers(text: str) -> str:
    """A message without numbers, to find repeated messages that differ only in a step or an object's address."""
    return re.sub(r"0x[0-9a-f]+|\d+", "", text)
