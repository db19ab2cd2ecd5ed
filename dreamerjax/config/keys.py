"""Settings as flat keys, such as `agent.actor.learning_rate`, and the keys that define a model family."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dreamerjax.config.hyperparameters import Config

KWARGS = "env.kwargs"  # the one setting whose value may be a mapping


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, for every leaf of a configuration dataclass or of nested mappings."""
    if dataclasses.is_dataclass(config):
        config = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    flat: dict[str, Any] = {}
    for name, value in config.items():
        is_leaf = f"{prefix}{name}" == KWARGS
        if not is_leaf and (dataclasses.is_dataclass(value) or isinstance(value, Mapping)):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def family_key(config: Config) -> dict[str, Any]:
    """The keys that make a model family (environment and architecture): runs that differ here cannot share weights.

    Settings that older versions did not have count only where they differ from the older behaviour.
    """
    flat = flatten(config)
    later = {"env.obs_keys": "", "env.obs_ignore": "", "env.image.layout": "auto"}
    return {
        key: value
        for key, value in flat.items()
        if key in ("env.id", "env.obs", "env.action_repeat")
        or (key.startswith("env.image.") and key not in later)
        or (key in later and value != later[key])
        or (key.startswith("agent.model.") and key != "agent.model.size")
    }


def family_name(config: Config) -> str:
    """A fingerprint of the family, eight hexadecimal digits."""
    return hashlib.sha256(json.dumps(family_key(config), sort_keys=True).encode()).hexdigest()[:8]
