"""`python run.py [train]`: trains, or resumes."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from dreamerjax.cli.common import command_parser, for_platform, help_width, path, start_backend, wrapped
from dreamerjax.cli.settings_help import settings_help
from dreamerjax.config import Config
from dreamerjax.envs import VectorEnv, inspect_env, spaces_of
from dreamerjax.monitoring.summary import final_paragraph
from dreamerjax.monitoring.terminal import Display
from dreamerjax.runs.checkpoint import has_checkpoint
from dreamerjax.runs.export import refuse_export
from dreamerjax.runs.load import LoadedAgent, load_run, read_settings
from dreamerjax.runs.presets import Recipe, read_config_file
from dreamerjax.runs.run_folder import RunFolder, RunFolderError, default_run_folder
from dreamerjax.runs.settings import nested, read_flags
from dreamerjax.runs.start import Beginning, Parent, Start, resumed
from dreamerjax.runtime.backend import BACKENDS, Backend
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.memory import check_replay_fits
from dreamerjax.runtime.output import complain
from dreamerjax.training.budget import few_updates_told
from dreamerjax.training.reporter import Films
from dreamerjax.types import Spaces

TRAIN_HELP = """\
Trains an agent, or resumes the training of a run folder. Examples:

  --env cartpole          a task with its own settings
  --env gym:Acrobot-v1    any environment, as suite:ID (docs/environments.md)
  --run-dir runs/a        resume a run
"""
SETTINGS_HELP = (
    "settings: each is a flag, and a key in the YAML files of --config. Flags override files, and files override the "
    "settings of the environment."
)


def train(arguments: list[str]) -> int:
    """`python run.py [train] --env cartpole [flags]`."""
    parser = command_parser("train", TRAIN_HELP, add_help=False)
    _add_flags(parser)
    given, rest = parser.parse_known_args(arguments)
    if given.help:
        print(f"{parser.format_help()}\n{wrapped(SETTINGS_HELP)}\n\n{settings_help(help_width())}")
        return 0
    layers = [*map(read_config_file, given.config), read_flags(rest)]
    stored = read_settings(given.run_dir) if given.run_dir else None
    if stored is not None:
        refuse_export(given.run_dir)
    parent = _parent(given.init_from)
    if stored is not None:
        start = Start(resumed(stored, layers, str(given.run_dir)), _recipe_note(given.recipe))
        if parent is not None:
            parent.check(start.config)
        spaces = spaces_of(start.config.env)
        backend = start_backend(given.backend, also_cpu=True, deterministic=start.config.train.deterministic)
    else:
        start, spaces, backend = _begin(given.backend, Beginning(layers, recipe=given.recipe, parent=parent))
    config = for_platform(start.config, backend)
    # Before the run folder is created.
    check_replay_fits(config.replay, spaces, config.agent.model)
    source = load_run(given.init_from) if given.init_from else None
    with RunFolder.open(given.run_dir or default_run_folder(config.env.name)) as folder:
        return _train_in(folder, config, backend, source, notes=start.told, profile=given.profile)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that are not settings."""
    flag = parser.add_argument
    flag("-h", "--help", action="store_true", help="print this help")
    flag(
        "--run-dir",
        type=path,
        metavar="FOLDER",
        help="the run's folder; resumes the run if it contains a checkpoint (default: runs/<env>-<date>-<time>)",
    )
    flag(
        "--config",
        type=path,
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file of settings, or laptop or laptop_dmc; may be repeated, later files override earlier ones",
    )
    flag(
        "--init-from",
        type=path,
        metavar="RUN",
        help="start with the weights and settings of another run; flags and files override its settings",
    )
    flag(
        "--recipe",
        choices=get_args(Recipe),
        type=lambda name: {"published": "defaults"}.get(name, name),  # its name before version 0.1
        help="base settings for an environment without its own (default: laptop on a CPU, defaults on an accelerator)",
    )
    flag("--backend", default="auto", metavar="NAME", help=f"one of {', '.join(BACKENDS)} (default: auto)")
    # apply_variant removes it from the command line before this parser runs.
    flag("--variant", metavar="FILE.py:NAME", help="call this function first, to change the program (docs/networks.md)")
    flag("--profile", action="store_true", help="write short traces of JAX's profiler into the run folder")


def _begin(backend_name: str, beginning: Beginning) -> tuple[Start, Spaces, Backend]:
    """The settings of a new run, which may depend on the back-end; its spaces; the back-end."""
    look = inspect_env(beginning.env)
    early = None if beginning.needs_platform else beginning.settings(look, "")  # report errors before JAX starts
    backend = start_backend(backend_name, also_cpu=True, deterministic=beginning.deterministic)
    return early or beginning.settings(look, backend.platform), look.spaces, backend


def _recipe_note(recipe: Recipe | None) -> tuple[str, ...]:
    return ("A resumed run keeps its settings: --recipe changes nothing.",) if recipe else ()


def _parent(source: Path | None) -> Parent | None:
    """The run of --init-from."""
    if source is None:
        return None
    stored = read_settings(source)
    if stored is None or not has_checkpoint(RunFolder(source).checkpoints):
        raise RunFolderError(f"--init-from {source} contains no checkpoint, expected the folder of a run.")
    return Parent(str(source), stored)


def _train_in(
    folder: RunFolder,
    config: Config,
    backend: Backend,
    source: LoadedAgent | None,
    *,
    notes: Sequence[str],
    profile: bool,
) -> int:
    from dreamerjax.runtime.profiler import HOW_TO_OPEN
    from dreamerjax.training.loop import Loop

    display = Display(f"{config.env.name} on {backend.device}")
    loop: Loop | None = None

    def exit_message() -> str:
        return loop.exit_message() if loop else f"Exited at once, before training; {folder.path} is unchanged."

    with Interrupt(before_exit=display.close, exit_message=exit_message) as interrupt, display:
        display.note(f"{config.env.name}, seed {config.seed}, {backend.platform} ({backend.device}), in {folder.path}")
        if backend.note:
            display.note(backend.note)
        for line in filter(None, (*notes, few_updates_told(config))):
            display.note(line)
        if profile:
            display.note(f"Profiler traces are written to {folder.profile}: {HOW_TO_OPEN}.")
        loop = Loop(config, folder, backend, display, interrupt, profile=profile, film=_film)
        if has_checkpoint(folder.checkpoints):
            loop.resume()
        elif source is not None:
            for note in source.notes:
                display.note(f"{note}.")
            loop.start_from(source)
        folder.write_config(nested(config))
        summary = loop.run()
        report = _report(folder.path, display) if config.log.report and summary["stopped"] != "interrupted" else None
        display.finish(final_paragraph(summary, report=report))
    if interrupt.lost_output is not None:
        complain(_without_output(folder.path, summary, str(interrupt.lost_output)))
    return (interrupt.requested or 0) if summary["stopped"] == "interrupted" else 0


def _without_output(run_dir: Path, summary: Mapping[str, Any], reason: str) -> str:
    """The message for standard error when standard output was lost during a run."""
    how = f"Standard output was lost ({reason}): the run"
    at = f"{summary['env_steps']:,} environment steps"
    if summary["stopped"] == "interrupted":
        return f"{how} was saved at {at}; run the same command with --run-dir {run_dir} to resume."
    return f"{how} finished at {at} and is saved in {run_dir}."


def _film(loaded: LoadedAgent, lent: VectorEnv | None) -> Films:
    from dreamerjax.viz.film import film_run  # deferred: imports matplotlib

    return film_run(loaded, lent=lent)


def _report(run_dir: Path, display: Display) -> Path | None:
    """Writes the report of a finished run. A failure is only noted: the run itself is saved."""
    from dreamerjax.viz.report import write_report

    try:
        with display.during("writing the report"):
            return write_report(run_dir)
    except Exception as error:
        display.note(f"No report: {error}")
        return None
