"""What to do about a failure: settings to change, as flags that can be copied, and a few words."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dreamerjax.config import Config, flatten

FACTOR = 3.0  # by which a number is made larger or smaller: what is less is hardly seen


class Remedy(NamedTuple):
    """What to do."""

    changes: Mapping[str, Any]  # dotted key -> value to give; empty where no setting mends it
    words: str  # what that does, or what else to do

    def __str__(self) -> str:
        """One line, the flags last."""
        return f"{self.words}: {self.flags}" if self.changes else self.words

    @property
    def flags(self) -> str:
        """The flags, as they are typed after `python run.py`."""
        return " ".join(f"--{key.replace('_', '-')} {_typed(value)}" for key, value in self.changes.items())


def words_and_flags(remedy: str) -> tuple[str, list[str]]:
    """The two parts of a remedy as an alert has it: the words, and each flag with its value; there may be no flags."""
    words, *flags = re.split(r":? (?=--)", remedy)
    return words, flags


def more(config: Config, *keys: str) -> dict[str, Any]:
    """Settings -> three times what they are now; those that are 0 get their published value."""
    return _scaled(config, FACTOR, keys)


def less(config: Config, *keys: str) -> dict[str, Any]:
    """Settings -> a third of what they are now; those that are 0 stay out of it."""
    return {key: value for key, value in _scaled(config, 1 / FACTOR, keys).items() if flatten(config)[key]}


def _scaled(config: Config, factor: float, keys: tuple[str, ...]) -> dict[str, Any]:
    now, published = flatten(config), flatten(Config())
    return {key: _rounded(now[key] * factor) or published[key] for key in keys}


def _rounded(value: float) -> float:
    """Two digits: 0.009, not 0.0089999."""
    return float(f"{value:.2g}")


def _typed(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
