"""The tree of the runs in a folder: each fork below its parent, with the step and the settings that changed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text
from rich.tree import Tree

from dreamerjax.runs.checkpoint import CheckpointError, read_host
from dreamerjax.runs.lineage import Event, Lineage, lineage_of


class Member(NamedTuple):
    """A run with a checkpoint."""

    run_dir: Path
    family: str  # fingerprint
    env: str
    step: int  # environment steps of its newest checkpoint
    lineage: Lineage


def find_members(folder: Path) -> list[Member]:
    """The runs in a folder and below it, sorted by path; without runs of old versions, which stored no lineage."""
    found = []
    for checkpoints in sorted(folder.rglob("checkpoints")):
        try:
            host, restored = read_host(checkpoints)
        except (CheckpointError, OSError):
            continue
        if lineage := lineage_of(host):
            settings = host["settings"]
            name = settings["env.name"]
            found.append(Member(checkpoints.parent, host["family"]["fingerprint"], name, restored.step, lineage))
    return found


def lineage_tree(members: list[Member], title: str) -> Tree:
    """The runs as a tree: each fork below its parent."""
    tree = Tree(title)
    branches: dict[Path, Tree] = {}
    # A parent has fewer forks in its lineage than its children, so it comes first.
    for member in sorted(members, key=lambda member: (len(_forks(member)), str(member.run_dir))):
        start = _forks(member)[-1] if _forks(member) else None
        parent = branches.get(Path(start.parent).resolve()) if start and start.parent else None
        branch = (parent or tree).add(_title(member, start, lost=parent is None))
        branches[member.run_dir.resolve()] = branch
        for event in _own_events(member):
            where = branch if event.what == "forked" else branch.add(Text(f"resumed at {event.step:,} steps", "dim"))
            for line in changed_lines(event.changed):
                where.add(Text(line, "cyan"))
    return tree


def _forks(member: Member) -> list[Event]:
    return [event for event in member.lineage if event.what == "forked"]


def _own_events(member: Member) -> Iterator[Event]:
    """The events of this run, from its fork on, without those of its parent."""
    first = max((n for n, event in enumerate(member.lineage) if event.what == "forked"), default=1)
    yield from member.lineage[first:]


def _title(member: Member, start: Event | None, *, lost: bool) -> Text:
    text = Text.assemble(
        (str(member.run_dir), "bold"), f"  {member.env}, family {member.family}, {member.step:,} steps"
    )
    if start is not None:
        text.append(f", forked {f'from {start.parent} ' if lost else ''}at {start.step:,}")
    return text


def changed_lines(changed: Mapping[str, Sequence[Any]]) -> list[str]:
    """One line per changed setting, such as `train.env_steps: 40000 -> 80000`."""
    return [f"{key}: {there} -> {here}" for key, (there, here) in changed.items()]
