"""Commands of the lab: `experiment`, `sweep`, `lineage`, `compare`, `bench`."""

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from dreamerjax.bench.env_speed import env_table, measure_env
from dreamerjax.bench.settings import add_flags, read_bench_settings
from dreamerjax.bench.sweep import measure_points, sweep_points
from dreamerjax.bench.table import compare, comparison_table, read_result, result_table, sweep_table
from dreamerjax.cli.common import (
    Status,
    command_parser,
    for_platform,
    make_console,
    path,
    print_result,
    start_backend,
    stopped,
    whole_number,
)
from dreamerjax.config import ConfigError
from dreamerjax.runs.presets import read_env
from dreamerjax.runs.run_folder import RunFolderError
from dreamerjax.runs.settings import combine
from dreamerjax.runtime.backend import BACKENDS
from dreamerjax.runtime.interrupt import Interrupt

EXPERIMENT_HELP = """\
Tests a hypothesis: makes the runs of its baseline and of its change, and says what they show.

Runs that have ended are not made again, and a baseline that several hypotheses share is made once. Ctrl-C saves every
run; the same command goes on. The report is in runs/experiments/NAME, and one entry is added to experiments/LOG.md.
"""

SWEEP_HELP = """\
Varies settings: a grid, a search by Optuna, or a population of actor-critics in the dreams of one world model.

Runs that have ended are not made again. Ctrl-C saves every run; the same command goes on. The report is in
runs/sweeps/NAME. docs/research.md shows what a file of a sweep holds.
"""

COMPARE_HELP = """\
Puts runs side by side: return by environment steps, time to solve, the settings and commits in which they differ.

With --published, draws runs over the published learning curve of their task instead, and says where they end.
"""

BENCH_HELP = """\
Measures how fast updates are, how well they use the machine, what compiling and memory cost, and the parts.

Without flags: size 1m, 16 windows of 64 rows, 15 imagined steps, 4 numbers to see and 2 actions, the published
settings of dreamerjax/config/hyperparameters.py. Every timed call gets rows that were drawn afresh from a replay of
random rows.
"""


def experiment(arguments: list[str]) -> int:
    """`python run.py experiment experiments/hypotheses/NAME.yaml [--jobs 2]`."""
    parser = command_parser("experiment", EXPERIMENT_HELP)
    parser.add_argument("hypothesis", type=path, nargs="+", help="the file of a hypothesis; several are made in turn")
    parser.add_argument("--jobs", type=whole_number, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--allow-many-changes", action="store_true", help="accept a hypothesis of several changes")
    parser.add_argument("--out", type=path, default=Path("runs/experiments"), help="(default: runs/experiments)")
    parser.add_argument("--log", type=path, default=Path("experiments/LOG.md"), help="(default: experiments/LOG.md)")
    given = parser.parse(arguments)
    if given.jobs < 1:
        raise ConfigError(f"--jobs is {given.jobs}, expected 1 or more.")
    from dreamerjax.study.experiment import run_experiment
    from dreamerjax.study.hypothesis import read_hypothesis
    from dreamerjax.study.report import append_log, in_words, write_report

    hypotheses = [read_hypothesis(file, allow_many_changes=given.allow_many_changes) for file in given.hypothesis]
    status = Status("experiment")
    with Interrupt(before_exit=status.close, last_words=_last_words) as interrupt, status:
        for hypothesis in hypotheses:
            status.note(f"{hypothesis.name}: {hypothesis.sentence}")
            result = run_experiment(
                hypothesis,
                at_once=given.jobs,
                say=status.note,
                show=status.show,
                interrupted=lambda: interrupt.requested is not None,
            )
            if result is None:
                return stopped(interrupt, status, "the runs are saved, and the same command goes on")
            report = write_report(result, given.out / hypothesis.name)
            append_log(result, given.log)
            status.note(f"{in_words(result)}\n{report}")
    return 0


def sweep(arguments: list[str]) -> int:
    """`python run.py sweep experiments/sweeps/NAME.yaml [--jobs 2] [--executor ray]`."""
    parser = command_parser("sweep", SWEEP_HELP)
    parser.add_argument("sweep", type=path, help="the file of a sweep")
    parser.add_argument("--jobs", type=whole_number, default=1, help="runs side by side on this machine (default: 1)")
    parser.add_argument("--executor", default="local", help="local, or ray (default: local)")
    parser.add_argument("--address", help="of a Ray cluster (default: one that is started on this machine)")
    parser.add_argument("--out", type=path, default=Path("runs/sweeps"), help="(default: runs/sweeps)")
    given = parser.parse(arguments)
    if given.jobs < 1:
        raise ConfigError(f"--jobs is {given.jobs}, expected 1 or more.")
    if given.executor not in ("local", "ray"):
        raise ConfigError(f"--executor is {given.executor!r}, expected local or ray.")
    from dreamerjax.study.ray_runner import start_ray, stop_ray
    from dreamerjax.study.sweep import run_sweep
    from dreamerjax.study.sweep_plan import read_sweep
    from dreamerjax.study.sweep_report import write_sweep_report

    plan, folder = read_sweep(given.sweep), given.out / given.sweep.stem
    if plan.kind == "population":
        start_backend("auto")  # it runs in this process
    if given.executor == "ray":
        start_ray(given.address)
    try:
        status = Status("sweep")
        with Interrupt(before_exit=status.close, last_words=_last_words) as interrupt, status:
            status.note(f"{plan.name}: {plan.sentence}")
            result = run_sweep(
                plan,
                folder,
                executor=given.executor,
                at_once=given.jobs,
                say=status.note,
                show=status.show,
                interrupted=lambda: interrupt.requested is not None,
            )
            if result is None:
                return stopped(interrupt, status, "what was done is saved, and the same command goes on")
            status.note(str(write_sweep_report(result, folder)))
    finally:
        if given.executor == "ray":
            stop_ray()
    return 0


def _last_words() -> str:
    return (
        "Ended at once: every run that has ended is saved, those under way save themselves and stop, and the same "
        "command goes on."
    )


def lineage(arguments: list[str]) -> int:
    """`python run.py lineage [FOLDER]`."""
    parser = command_parser(
        "lineage", "Shows which runs were started from which (--init-from), and what changed in them on the way."
    )
    parser.add_argument("folder", type=path, nargs="?", default=Path("runs"), help="where runs lie (default: runs)")
    folder = parser.parse(arguments).folder
    from dreamerjax.study.families import family_tree, find_members

    members = find_members(folder)
    if not members:
        raise RunFolderError(f"{folder} holds no run with a checkpoint, expected the folder of a run or of several.")
    make_console().print(family_tree(members, str(folder)))
    return 0


def compare_runs(arguments: list[str]) -> int:
    """`python run.py compare runs/a runs/b`, `compare --published runs/a runs/b`."""
    parser = command_parser("compare", COMPARE_HELP)
    parser.add_argument("runs", type=path, nargs="*", metavar="RUN", help="folders of runs, two or more")
    parser.add_argument(
        "--published", type=path, nargs="+", metavar="RUN", help="runs of one task, against the authors'"
    )
    parser.add_argument(
        "--across-families", action="store_true", help="compare other environments and architectures, too"
    )
    parser.add_argument("--out", type=path, help="the picture (default: comparison.png, published.png)")
    parser.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    given = parser.parse(arguments)
    if bool(given.runs) == bool(given.published):
        raise ConfigError("Give the folders of two or more runs, or --published and those of runs of one task.")
    try:
        if given.published:
            return _compare_published(given.published, given.out or Path("published.png"), as_json=given.json)
        return _compare(given.runs, given.out or Path("comparison.png"), given.across_families, as_json=given.json)
    except OSError as error:
        raise RunFolderError(f"{error.filename or given.out}: {error.strerror or error}.") from error


def _compare(run_dirs: list[Path], picture: Path, across_families: bool, *, as_json: bool) -> int:
    from dreamerjax.study import comparison
    from dreamerjax.viz.curves import learning_curve

    if len(run_dirs) < 2:
        raise ConfigError("One run cannot be compared, expected two or more. `show` draws one.")
    runs = comparison.read_runs(run_dirs, across_families=across_families)
    learning_curve(run_dirs, picture, solve_return=runs[0].config.env.solve_return)
    if as_json:
        print(json.dumps(comparison.as_json(runs)))
        return 0
    console = make_console()
    settings = comparison.settings_table(runs) or "The settings are all the same, but for the seed."
    tables = (comparison.return_table(runs), comparison.outcome_table(runs), settings)
    for part in filter(None, (*tables, comparison.about_seeds(runs), str(picture))):
        console.print(part)
    return 0


def _compare_published(run_dirs: list[Path], picture: Path, *, as_json: bool) -> int:
    from dreamerjax.study.published import compare_published

    verdicts = compare_published(run_dirs, picture)
    if as_json:
        print(json.dumps([{**verdict._asdict(), "verdict": verdict.word} for verdict in verdicts]))
        return 0
    for v in verdicts:
        print(
            f"{v.name}: return {v.ours:.1f} at {v.frames:,} frames, {v.word} the published {v.lowest:.1f} to "
            f"{v.highest:.1f} (mean {v.mean:.1f})."
        )
    print(picture)
    return 0


def bench(arguments: list[str]) -> int:
    """`python run.py bench [--size 1m] [--json]`, `bench --sweep size=300k,1m`, `bench --compare A.json B.json`."""
    parser = command_parser("bench", BENCH_HELP)
    add_flags(parser)
    parser.add_argument("--backend", default="auto", help=f"one of {', '.join(BACKENDS)} (default: auto)")
    given = parser.parse(arguments)
    if given.compare:
        comparison = compare(*map(read_result, given.compare))
        print_result(comparison, comparison_table(comparison, *given.compare), as_json=given.json)
        return 0
    if given.env:
        env = combine(read_env(given.env)).env
        results = measure_env(env)
        print_result(results, env_table(results, given.env), as_json=given.json)
        return 0
    settings = read_bench_settings(given)
    if given.sweep:
        key, lines = sweep_points(arguments, given.sweep)
        for line in lines.values():
            read_bench_settings(parser.parse(line))  # a mistake in the last point is told before the first is measured
        with Console(stderr=True).status(f"{key}: measuring") as status:
            points = list(
                measure_points(lines, rounds=settings.rounds, say=lambda text: status.update(f"{key} {text}"))
            )
        print_result([result for _, result in points], sweep_table(key, points), as_json=given.json)
        return int(any("error" in result for _, result in points))
    backend = start_backend(given.backend)
    from dreamerjax.bench.bench import measure

    settings = dataclasses.replace(settings, config=for_platform(settings.config, backend))
    with Console(stderr=True).status("starting") as status:
        result = measure(settings, backend, say=status.update)
    print_result(result, result_table(result), as_json=given.json)
    return 0
