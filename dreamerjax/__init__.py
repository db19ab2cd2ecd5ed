"""dreamerjax: DreamerV3, the world-model agent, as pure functions in JAX and Flax."""

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"
__all__ = ["EXAMPLES", "__version__", "checkpoint_steps", "load"]  # pyright: ignore[reportUnsupportedDunderAll]

EXAMPLES = Path(__file__).parent / "examples"  # agents that come along, a folder each

# Found when they are first used: a program chooses its back-end before anything touches JAX.
_PUBLIC = dict.fromkeys(["load", "checkpoint_steps"], "dreamerjax.inference.dreamer")


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
