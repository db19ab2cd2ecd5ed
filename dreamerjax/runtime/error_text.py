"""An error as one sentence: for what is no more than an extra, whose failure is told and not raised."""

import re

from dreamerjax.config import ConfigError
from dreamerjax.envs import EnvError

LONGEST = 400  # characters
FOR_PEOPLE = (ConfigError, EnvError, OSError)  # their messages say enough


def one_line(error: BaseException) -> str:
    """The first line of an error's message; with its type, where the message is not made for people."""
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    message = next(filter(None, lines), "")
    kind = type(error).__name__
    told = message if isinstance(error, FOR_PEOPLE) and message else f"{kind}: {message}" if message else kind
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 3]}..."


def without_numbers(sentence: str) -> str:
    """A sentence without its numbers: those of one reason differ in a step, or in the address of an object."""
    return re.sub(r"0x[0-9a-f]+|\d+", "", sentence)
