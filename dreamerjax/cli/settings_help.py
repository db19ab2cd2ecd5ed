"""The list of settings in `--help`: flags, values, default, and the comment after the field in the source."""

import ast
import dataclasses
import functools
import inspect
import io
import itertools
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dreamerjax.config import Config, Range
from dreamerjax.runs.settings import SHORTCUTS

INDENT = " " * 8
METAVARS = {int: "INT", float: "NUMBER", str: "TEXT"}

# For fields without a comment in the source.
SENTENCES = {
    "seed": "seed of everything random in a run",
    "env.image.width": "pixels, a multiple of 16",
    "env.worker_failure_minutes": "the time over which `worker_failures` counts",
    "agent.model.reward_layers": "hidden layers of the reward head",
    "agent.model.cont_layers": "hidden layers of the continue head",
    "agent.model.actor_layers": "hidden layers of the actor",
    "agent.model.critic_layers": "hidden layers of the critic",
    "agent.model.prior_layers": "hidden layers of the prior",
    "agent.model.posterior_layers": "hidden layers of the posterior",
    "agent.world_model.learning_rate": "learning rate of the world model",
    "agent.world_model.reconstruction_scale": "weight of the reconstruction loss",
    "agent.world_model.reward_scale": "weight of the reward loss",
    "agent.world_model.cont_scale": "weight of the continue loss",
    "agent.world_model.dynamics_scale": "weight of the dynamics loss, which trains the prior",
    "agent.world_model.representation_scale": "weight of the representation loss, which trains the posterior",
    "agent.actor.learning_rate": "learning rate of the actor",
    "agent.actor.entropy_scale": "weight of the policy's entropy in the actor loss",
    "agent.actor.entropy_schedule": "schedule of entropy_scale",
    "agent.actor.loss_scale": "weight of the actor loss",
    "agent.critic.learning_rate": "learning rate of the critic",
    "agent.critic.loss_scale": "weight of the critic loss on imagined trajectories",
    "agent.returns.return_lambda": "lambda of the lambda returns",
    "train.stop_when_solved": "stop when the greedy mean return reaches env.solve_return",
    "log.checkpoints_kept": "checkpoints kept in the run folder; older ones are deleted",
    "log.tensorboard": "write TensorBoard events in addition to metrics.jsonl",
}


def settings_help(width: int) -> str:
    """Lists every setting, grouped by section, in lines of at most `width` columns."""
    sections: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    for section, cls, field in _fields(Config):
        sections.setdefault(section, []).append(_entry(section, cls, field, width))
        titles[section] = f"{section or 'run'}: {' '.join((inspect.getdoc(cls) or '').split())}"
    return "\n\n".join(
        "\n".join([*textwrap.wrap(titles[section], width), *entries]) for section, entries in sections.items()
    )


def sentence_of(key: str) -> str:
    """The sentence that explains a setting; empty if the source is not installed."""
    section, _, name = key.rpartition(".")
    cls: Any = Config
    for part in filter(None, section.split(".")):
        cls = get_type_hints(cls)[part]
    return _comments(cls).get(name) or SENTENCES.get(key, "")


def _fields(cls: Any, section: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Section, dataclass and field of every setting; a section's own settings before those of its subsections."""
    hints = get_type_hints(cls)
    inner = [field for field in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[field.name])]
    yield from ((section, cls, field) for field in dataclasses.fields(cls) if field not in inner)
    for field in inner:
        yield from _fields(hints[field.name], f"{section}.{field.name}".lstrip("."))


def _entry(section: str, cls: Any, field: dataclasses.Field[Any], width: int) -> str:
    key = f"{section}.{field.name}".lstrip(".")
    names = [f"--{name.replace('_', '-')}" for name in (key, *(n for n, full in SHORTCUTS.items() if full == key))]
    hint = get_type_hints(cls, include_extras=True)[field.name]
    kinds = [hint, *get_args(hint), *(inner for part in get_args(hint) for inner in get_args(part))]
    if bool in kinds:
        values, names = "", [*names, f"--no-{names[-1].removeprefix('--')}"]
    elif get_origin(hint) is Literal:
        values = f"{{{','.join(map(str, get_args(hint)))}}}"
    else:
        values = next(metavar for kind, metavar in METAVARS.items() if kind in kinds)
    allowed = next((part.expected for part in kinds if isinstance(part, Range)), None)
    facts = "; ".join(filter(None, (allowed, f"default: {_shown(field.default)}")))
    text = textwrap.wrap(f"{sentence_of(key)} [{facts}]", width, initial_indent=INDENT, subsequent_indent=INDENT)
    return "\n".join([f"  {', '.join(names)} {values}".rstrip(), *text])


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return "none" if default is None else "empty" if default == "" else str(default)


@functools.cache
def _comments(cls: Any) -> dict[str, str]:
    """Field of a dataclass -> the comment after it in the source, with the comment lines that continue it."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}  # by line
    found = {}
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.ClassDef)
    for field in definition.body:
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        end = field.end_lineno or field.lineno
        lines = [line for line in range(field.lineno, end + 1) if line in comments]
        if end in lines:
            lines += itertools.takewhile(lambda line: _continues(comments.get(line)), itertools.count(end + 1))
        if lines:
            found[field.target.id] = " ".join(comments[line].string.lstrip("# ") for line in lines)
    return found


def _continues(comment: tokenize.TokenInfo | None) -> bool:
    """Whether a line has only a comment, and it starts in lower case: the rest of the sentence above."""
    return comment is not None and comment.line.lstrip()[:1] == "#" and comment.string.lstrip("# ")[:1].islower()
