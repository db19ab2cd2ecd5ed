"""dreamerjax: DreamerV3, the world-model agent, as pure functions in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamerjax.host.dreamer import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

# Found when they are first used: a program chooses its back-end before anything touches JAX.
_PUBLIC = {"load": "dreamerjax.host.dreamer"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
