"""`python run.py [train]`: trains, or resumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from dreamerjax.cli.common import command_parser, for_platform, path, start_backend
from dreamerjax.config import Config, flatten
from dreamerjax.envs import VectorEnv, look_at, spaces_of
from dreamerjax.monitoring.summary import final_paragraph
from dreamerjax.monitoring.terminal import Display
from dreamerjax.runs.checkpoint import has_checkpoint
from dreamerjax.runs.export import refuse_export
from dreamerjax.runs.load import LoadedAgent, load_run, read_settings
from dreamerjax.runs.presets import Recipe, read_config_file
from dreamerjax.runs.run_folder import RunFolder, RunFolderError, default_run_folder
from dreamerjax.runs.settings import KEYS, SHORTCUTS, nested, read_flags
from dreamerjax.runs.start import Beginning, Parent, Start, resumed
from dreamerjax.runtime.backend import Backend
from dreamerjax.runtime.interrupt import Interrupt
from dreamerjax.runtime.memory import check_replay_fits
from dreamerjax.runtime.output import complain
from dreamerjax.training.budget import few_updates_told
from dreamerjax.training.reporter import Films
from dreamerjax.types import Spaces

TRAIN_HELP = """\
Trains an agent, or resumes the training in a run folder.

  --env NAME            a task with settings of its own (cartpole, ...), or family:ID such as gym:Acrobot-v1
                        (docs/environments.md)
  --obs WHAT            state, pixels or both, where an environment offers more than one
  --backend NAME        auto, cpu, cuda, rocm or tpu (default: auto)
  --run-dir FOLDER      where everything goes (default: runs/<env>-<date>-<time>); resumes if it holds a checkpoint
  --recipe NAME         laptop or published: what a Gymnasium environment or your own starts from (default: laptop on a
                        CPU, published on an accelerator); flags and files come on top
  --init-from RUN       start from what another run has learned, with its settings
  --config FILE         more settings, as YAML, or laptop or laptop_dmc; may be repeated
  --variant FILE.py:NAME  a function that changes the program before it runs (docs/networks.md)
  --profile             write short traces of JAX's profiler into the run folder
  --seed N --size 1m --env-steps N --train-ratio R --no-stop-when-solved
"""


def train(arguments: list[str]) -> int:
    """`python run.py [train] --env cartpole [flags]`."""
    parser = command_parser("train", TRAIN_HELP, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--run-dir", type=path)
    parser.add_argument("--init-from", type=path, metavar="RUN")
    parser.add_argument("--config", type=path, action="append", default=[], metavar="FILE")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--recipe", choices=get_args(Recipe))
    parser.add_argument("--profile", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    if given.help:
        print(parser.format_help() + _all_flags())
        return 0
    asked = [*map(read_config_file, given.config), read_flags(rest)]
    stored = read_settings(given.run_dir) if given.run_dir else None
    if stored is not None:
        refuse_export(given.run_dir)
    parent = _parent(given.init_from)
    if stored is not None:
        start = Start(resumed(stored, asked, str(given.run_dir)), _kept(given.recipe))
        if parent is not None:
            parent.check(start.config)
        spaces = spaces_of(start.config.env)
        backend = start_backend(given.backend, also_cpu=True, deterministic=start.config.train.deterministic)
    else:
        start, spaces, backend = _begin(given.backend, Beginning(asked, recipe=given.recipe, parent=parent))
    config = for_platform(start.config, backend)
    # A mistake in these must not leave a run folder behind.
    check_replay_fits(config.replay, spaces, config.agent.model)
    source = load_run(given.init_from) if given.init_from else None
    with RunFolder.open(given.run_dir or default_run_folder(config.env.name)) as folder:
        return _train_in(folder, config, backend, source, told=start.told, profile=given.profile)


def _begin(backend_name: str, beginning: Beginning) -> tuple[Start, Spaces, Backend]:
    """The settings of a new run, and the back-end that it may depend on."""
    look = look_at(beginning.env)
    early = None if beginning.needs_platform else beginning.settings(look, "")  # a mistake need not wait
    backend = start_backend(backend_name, also_cpu=True, deterministic=beginning.deterministic)
    return early or beginning.settings(look, backend.platform), look.spaces, backend


def _kept(recipe: Recipe | None) -> tuple[str, ...]:
    return ("A run that goes on keeps the settings that it has: --recipe changes nothing.",) if recipe else ()


def _parent(source: Path | None) -> Parent | None:
    """The run to start from, if there is to be one."""
    if source is None:
        return None
    stored = read_settings(source)
    if stored is None or not has_checkpoint(RunFolder(source).checkpoints):
        raise RunFolderError(f"--init-from {source} holds no checkpoint, expected the folder of a run.")
    return Parent(str(source), stored)


def _train_in(
    folder: RunFolder,
    config: Config,
    backend: Backend,
    source: LoadedAgent | None,
    *,
    told: Sequence[str],
    profile: bool,
) -> int:
    from dreamerjax.runtime.profiler import HOW_TO_OPEN
    from dreamerjax.training.loop import Loop

    display = Display(f"{config.env.name} on {backend.device}")
    loop: Loop | None = None

    def last_words() -> str:
        return loop.last_words() if loop else f"Ended at once, before anything was done; {folder.path} is as it was."

    with Interrupt(before_exit=display.close, last_words=last_words) as interrupt, display:
        display.note(f"{config.env.name}, seed {config.seed}, {backend.platform} ({backend.device}), in {folder.path}")
        if backend.note:
            display.note(backend.note)
        for line in filter(None, (*told, few_updates_told(config))):
            display.note(line)
        if profile:
            display.note(f"Traces go to {folder.profile}: {HOW_TO_OPEN}.")
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
    """What became of a run whose output nobody reads any more: a sentence."""
    how = f"Standard output was lost ({reason}): the run"
    at = f"{summary['env_steps']:,} environment steps"
    if summary["stopped"] == "interrupted":
        return f"{how} was saved at {at}; the same command with --run-dir {run_dir} goes on."
    return f"{how} had ended at {at}, and is saved in {run_dir}."


def _film(loaded: LoadedAgent, lent: VectorEnv | None) -> Films:
    from dreamerjax.viz.film import film_run  # only now, because it brings what draws, and training starts without

    return film_run(loaded, lent=lent)


def _report(run_dir: Path, display: Display) -> Path | None:
    """Writes the page of a run that has ended; one that cannot be made takes nothing from what was learned."""
    from dreamerjax.viz.report import write_report

    try:
        with display.during("writing the report"):
            return write_report(run_dir)
    except Exception as error:
        display.note(f"No report: {error}")
        return None


def _all_flags() -> str:
    """Every setting as a flag with its default."""
    defaults = flatten(Config())
    lines = [f"  --{key.replace('_', '-')} {'' if defaults[key] is None else defaults[key]}".rstrip() for key in KEYS]
    short = ", ".join(f"--{name.replace('_', '-')} = --{key.replace('_', '-')}" for name, key in SHORTCUTS.items())
    return (
        "\nevery setting, with its default (dreamerjax/config/hyperparameters.py explains each):\n"
        + "\n".join(lines)
        + (f"\n\nshort names: {short}\n")
    )
