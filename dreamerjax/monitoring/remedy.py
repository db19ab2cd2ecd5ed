"""Remedies for failures: a short text, and settings to change as command-line flags."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dreamerjax.config import Config, flatten

FACTOR = 3.0  # for larger and smaller values of a setting: smaller factors have little effect


class Remedy(NamedTuple):
    """A recommended action."""

    changes: Mapping[str, Any]  # dotted key -> new value; empty if no setting helps
    words: str  # the effect of the changes, or what else to do

    def __str__(self) -> str:
        """One line that ends with the flags."""
        return f"{self.words}: {self.flags}" if self.changes else self.words

    @property
    def flags(self) -> str:
        """The flags for `python run.py`."""
        return " ".join(f"--{key.replace('_', '-')} {_typed(value)}" for key, value in self.changes.items())


def words_and_flags(remedy: str) -> tuple[str, list[str]]:
    """Splits the text of a remedy into its words and its flags, each with its value."""
    words, *flags = re.split(r":? (?=--)", remedy)
    return words, flags


def more(config: Config, *keys: str) -> dict[str, Any]:
    """Setting -> three times its present value, or the published value if that is 0."""
    return _scaled(config, FACTOR, keys)


def less(config: Config, *keys: str) -> dict[str, Any]:
    """Setting -> a third of its present value; without settings that are 0."""
    return {key: value for key, value in _scaled(config, 1 / FACTOR, keys).items() if flatten(config)[key]}


def _scaled(config: Config, factor: float, keys: tuple[str, ...]) -> dict[str, Any]:
    now, published = flatten(config), flatten(Config())
    return {key: _rounded(now[key] * factor) or published[key] for key in keys}


def _rounded(value: float) -> float:
    """Rounds to two digits: 0.009 instead of 0.0089999."""
    return float(f"{value:.2g}")


def _typed(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
