"""The ranges of settings, as part of the fields' types."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple


class ConfigError(ValueError):
    """A user's mistake: the message says what was given, what was expected and what to do."""


class Range(NamedTuple):
    """The values that a field may take."""

    expected: str
    holds: Callable[[Any], bool]


Positive = Annotated[float, Range("a number above 0", lambda x: x > 0)]
PositiveInt = Annotated[int, Range("1 or more", lambda x: x >= 1)]
NonNegative = Annotated[float, Range("0 or more", lambda x: x >= 0)]
NonNegativeInt = Annotated[int, Range("0 or more", lambda x: x >= 0)]
Fraction = Annotated[float, Range("a number from 0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[float, Range("a number from 0 to below 1", lambda x: 0 <= x < 1)]
AboveOne = Annotated[float, Range("a number above 1", lambda x: x > 1)]
AtLeastTwo = Annotated[int, Range("2 or more", lambda x: x >= 2)]
OddInt = Annotated[int, Range("an odd number, 3 or more", lambda x: x >= 3 and x % 2 == 1)]
