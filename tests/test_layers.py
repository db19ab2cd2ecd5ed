"""The import rule (one total order of rooms; replay and envs know nothing of the agent), and the sizes of files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "dreamerjax"
ROOT = Path(__file__).parents[1] / PACKAGE
# Each place may import from itself and from those left of it. What everybody may import stands first.
WORDS = {"", "types", "config", "command"}
ORDER = [
    WORDS,
    {"math"},
    {"nets"},
    {"agent"},
    {"replay"},
    {"envs"},
    {"runtime"},
    {"runs"},
    {"monitoring"},
    {"training"},
    {"inference"},
    {"viz"},
    {"play"},
    {"bench"},
    {"study"},
    {"cli", "__main__"},
]
LONGEST_FILE, LONGEST_FUNCTION = 350, 60  # lines
PURE = {"math", "nets", "agent"}
APART = {"replay", "envs"}  # these import themselves and the words alone
# Modules that touch the world outside: clocks, files, processes, hidden random numbers.
IMPURE_MODULES = {"datetime", "io", "logging", "os", "pathlib", "random", "shutil", "subprocess", "sys", "time"}
IMPURE_CALLS = {"print", "open", "input"}
IMPURE_ATTRIBUTES = {"numpy.random", "np.random", "jax.debug"}


def place(room: str) -> int:
    return next(index for index, rooms in enumerate(ORDER) if room in rooms)


def room_of_file(file: Path, root: Path) -> str:
    """ "math" for math/returns.py, "types" for types.py, "" for the package's own __init__.py."""
    first = file.relative_to(root).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imported_modules(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, in functions too; `package` is that of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from dreamerjax import host` names a room only in what is imported.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def dotted(node: ast.AST) -> str:
    """ "jax.debug.print" of an attribute, "open" of a name, and "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def import_violations(tree: ast.AST, room: str, package: list[str], rooms: set[str]) -> Iterator[tuple[int, str]]:
    for line, name in imported_modules(tree, package):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        other = parts[1] if len(parts) > 1 else ""
        if other not in rooms:
            other = ""  # a name of the package itself, such as __version__
        if place(other) > place(room) or (room in APART and other not in WORDS | {room}):
            yield line, f"{room or PACKAGE} imports {name}"


def impurities(tree: ast.AST, room: str, package: list[str]) -> Iterator[tuple[int, str]]:
    for line, name in imported_modules(tree, package):
        if name.split(".")[0] in IMPURE_MODULES or any(f"{name}.".startswith(f"{x}.") for x in IMPURE_ATTRIBUTES):
            yield line, f"{room} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in IMPURE_CALLS:
            yield node.lineno, f"{room} calls {dotted(node.func)}"
        elif isinstance(node, ast.Attribute) and dotted(node) in IMPURE_ATTRIBUTES:
            yield node.lineno, f"{room} uses {dotted(node)}"
        elif isinstance(node, ast.Global):
            yield node.lineno, f"{room} changes a global"


def violations(root: Path) -> list[str]:
    """Each breach of the rule in the package at `root`, as "file:line: what"."""
    files = sorted(root.rglob("*.py"))
    rooms = {room_of_file(file, root) for file in files}
    found = []
    for file in files:
        where, room = file.relative_to(root), room_of_file(file, root)
        if file.name == "utils.py":
            found.append(f"{where}:1: there is no utils.py: a file is named after its idea")
        if not any(room in rooms for rooms in ORDER):
            found.append(f"{where}:1: {room} is not a room of the house")
            continue
        tree, package = ast.parse(file.read_text()), [PACKAGE, *where.parent.parts]
        problems = list(import_violations(tree, room, package, rooms))
        if room in PURE:
            problems += impurities(tree, room, package)
        found += [f"{where}:{line}: {problem}" for line, problem in problems]
    return found


def lengths(root: Path) -> Iterator[tuple[str, int]]:
    """Files and functions that are too long: "file" or "file: function", and their lines."""
    for file in sorted(root.rglob("*.py")):
        text, where = file.read_text(), str(file.relative_to(root))
        if len(text.splitlines()) > LONGEST_FILE:
            yield where, len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    yield f"{where}: {node.name}", lines


def test_no_file_and_no_function_is_too_long():
    assert dict(lengths(ROOT)) == {}


def test_long_files_and_functions_are_found(tmp_path):
    longest = "\n".join(["def longest():", *["    pass"] * (LONGEST_FUNCTION - 1)])
    longer = longest.replace("longest", "longer") + "\n    pass"
    for name, text in {
        "longest.py": "\n" * LONGEST_FILE,
        "longer.py": "\n" * (LONGEST_FILE + 1),
        "functions.py": f"{longest}\n{longer}\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert dict(lengths(tmp_path)) == {"functions.py: longer": LONGEST_FUNCTION + 1, "longer.py": LONGEST_FILE + 1}


def test_every_file_keeps_to_the_import_rule():
    assert violations(ROOT) == []


@pytest.mark.parametrize("room", sorted(set().union(*ORDER) - {""}))
def test_the_rule_is_checked_on_real_rooms(room):
    assert room in {room_of_file(file, ROOT) for file in ROOT.rglob("*.py")}


ALLOWED = {
    "agent/losses.py": """
        import jax
        import dreamerjax
        from dreamerjax import __version__, types
        from dreamerjax.config import Config
        from dreamerjax.nets.rssm import RSSM
        from .policy import act
        from ..math import returns
        key = jax.random.split(jax.random.PRNGKey(0))
        timeout, opening = 1, "print(open())"
    """,
    "training/loop.py": """
        import time, os, random
        from dreamerjax.agent import train_step
        print(open("x"), time.time())
    """,
    "types.py": "from dreamerjax import config",
    "cli.py": "from dreamerjax.study import sweep\nfrom dreamerjax.training.loop import Loop",
}
PLANTED = [
    ("math/returns.py", "from dreamerjax.nets.rssm import RSSM", "math imports dreamerjax.nets.rssm.RSSM"),
    ("math/returns.py", "import dreamerjax.nets.rssm as rssm", "math imports dreamerjax.nets.rssm"),
    ("nets/rssm.py", "from dreamerjax import agent", "nets imports dreamerjax.agent"),
    ("nets/rssm.py", "from ..agent.losses import loss", "nets imports dreamerjax.agent.losses.loss"),
    ("nets/rssm.py", "from .. import training", "nets imports dreamerjax.training"),
    ("agent/losses.py", "def f():\n    from dreamerjax.training import loop", "agent imports dreamerjax.training.loop"),
    ("training/loop.py", "from dreamerjax.cli import main", "training imports dreamerjax.cli.main"),
    ("training/loop.py", "from dreamerjax.bench import table", "training imports dreamerjax.bench.table"),
    ("bench/table.py", "from dreamerjax.cli import main", "bench imports dreamerjax.cli.main"),
    ("envs/gym.py", "from dreamerjax.agent import agent", "envs imports dreamerjax.agent.agent"),
    ("envs/gym.py", "from dreamerjax.replay import ring", "envs imports dreamerjax.replay.ring"),
    ("types.py", "from dreamerjax.math import returns", "types imports dreamerjax.math.returns"),
    ("__init__.py", "from dreamerjax.training import loop", "dreamerjax imports dreamerjax.training.loop"),
    ("math/returns.py", "print(1)", "math calls print"),
    ("nets/rssm.py", "text = open('x').read()", "nets calls open"),
    ("agent/losses.py", "import time", "agent imports time"),
    ("agent/losses.py", "from datetime import datetime", "agent imports datetime.datetime"),
    ("agent/losses.py", "import os.path", "agent imports os.path"),
    ("agent/losses.py", "from random import random", "agent imports random.random"),
    ("agent/losses.py", "import numpy as np\nx = np.random.default_rng(0)", "agent uses np.random"),
    ("agent/losses.py", "from numpy.random import default_rng", "agent imports numpy.random.default_rng"),
    ("agent/losses.py", "import jax\njax.debug.print('x')", "agent uses jax.debug"),
    ("agent/losses.py", "n = 0\ndef f():\n    global n", "agent changes a global"),
    ("training/utils.py", "", "there is no utils.py: a file is named after its idea"),
    ("tools/tools.py", "", "tools is not a room of the house"),
]


ROOMS = ("math", "nets", "agent", "replay", "envs", "training", "bench", "study")


def write_package(root: Path, files: dict[str, str]) -> None:
    empty = {f"{room}/__init__.py": "" for room in ROOMS}
    for name, text in (empty | {"cli.py": "", "types.py": "", "config.py": "", "__init__.py": ""} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        (root / name).write_text("\n".join(line[indent:] for line in lines))


def test_the_checker_lets_pass_what_is_allowed(tmp_path):
    write_package(tmp_path, ALLOWED)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(("file", "text", "expected"), PLANTED)
def test_the_checker_finds_a_planted_violation(tmp_path, file, text, expected):
    write_package(tmp_path, ALLOWED | {file: text})
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{file}:")
    assert found[0].endswith(expected)
