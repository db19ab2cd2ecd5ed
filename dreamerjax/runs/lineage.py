"""The lineage of a run: its family, its ancestors, and the settings that changed in between.

The host.json of every checkpoint contains the lineage, so a copied or moved checkpoint keeps it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from dreamerjax.config import Config, family_key, family_name, flatten
from dreamerjax.runs.run_folder import changed_keys

IGNORED = ("log.", "alerts.")  # settings that do not change learning


class Event(NamedTuple):
    """One step of a lineage; a run that resumes with the same settings adds none."""

    what: Literal["begun", "forked", "resumed"]
    run: str  # the folder of the run from here on
    step: int  # environment steps; of a fork: those of its parent
    parent: str | None  # of a fork: the parent's folder
    changed: Mapping[str, Sequence[Any]]  # key -> (before, since)
    commit: str | None


Lineage = tuple[Event, ...]


def as_host(config: Config, lineage: Lineage) -> dict[str, Any]:
    """Family, settings and lineage for a checkpoint, JSON-able."""
    return {
        "family": family_as_host(config),
        "settings": flatten(config),
        "lineage": [event._asdict() for event in lineage],
    }


def family_as_host(config: Config) -> dict[str, Any]:
    """The family in a checkpoint, JSON-able: `checkpoint.restore` compares its keys."""
    return {"fingerprint": family_name(config), "keys": family_key(config)}


def lineage_of(host: Mapping[str, Any]) -> Lineage:
    """The lineage in a checkpoint; empty in one of an older version."""
    return tuple(Event(**event) for event in host.get("lineage", ()))


def changes(before: Mapping[str, Any], since: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ and change learning: key -> (before, since)."""
    changed = changed_keys(before, flatten(since))
    return {key: pair for key, pair in changed.items() if not key.startswith(IGNORED)}


def changes_told(before: Mapping[str, Any], since: Config) -> str:
    """Every setting that differs, in words: `seed: 0 -> 1; ...`; empty if none does.

    Args:
        before: the settings of a run folder or a checkpoint, flat. Settings that an older version did not have are left
            out.
        since: those of now.
    """
    changed = changed_keys(before, flatten(since))
    return "; ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items() if "missing" not in (old, new))
