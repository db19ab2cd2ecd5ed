"""The family tree of the runs in a folder: who was forked from whom, when, and with which settings changed."""

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
    """The runs in a folder and below it, by path; those of older versions, which kept no lineage, are left out."""
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


def family_tree(members: list[Member], title: str) -> Tree:
    """A tree of forks: each run below the one that it started from."""
    tree = Tree(title)
    branches: dict[Path, Tree] = {}
    # A parent has the shorter lineage, so that it stands there before its forks.
    for member in sorted(members, key=lambda member: (len(_forks(member)), str(member.run_dir))):
        start = _forks(member)[-1] if _forks(member) else None
        parent = branches.get(Path(start.parent).resolve()) if start and start.parent else None
        branch = (parent or tree).add(_title(member, start, lost=parent is None))
        branches[member.run_dir.resolve()] = branch
        for event in _own(member):
            where = branch if event.what == "forked" else branch.add(Text(f"resumed at {event.step:,} steps", "dim"))
            for line in in_words(event.changed):
                where.add(Text(line, "cyan"))
    return tree


def _forks(member: Member) -> list[Event]:
    return [event for event in member.lineage if event.what == "forked"]


def _own(member: Member) -> Iterator[Event]:
    """What happened in this run itself, the fork that began it too."""
    first = max((n for n, event in enumerate(member.lineage) if event.what == "forked"), default=1)
    yield from member.lineage[first:]


def _title(member: Member, start: Event | None, *, lost: bool) -> Text:
    text = Text.assemble(
        (str(member.run_dir), "bold"), f"  {member.env}, family {member.family}, {member.step:,} steps"
    )
    if start is not None:
        text.append(f", forked {f'from {start.parent} ' if lost else ''}at {start.step:,}")
    return text


def in_words(changed: Mapping[str, Sequence[Any]]) -> list[str]:
    """`train.env_steps: 40000 -> 80000` and so on."""
    return [f"{key}: {there} -> {here}" for key, (there, here) in changed.items()]
