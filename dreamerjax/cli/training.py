"""`python run.py [train]`: trains, or resumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamerjax.cli.common import command_parser, for_platform, path, start_backend
from dreamerjax.config import Config, ConfigError, family_key, flatten
from dreamerjax.host.backend import Backend
from dreamerjax.host.checkpoint import has_checkpoint
from dreamerjax.host.display import Display
from dreamerjax.host.envs import VectorEnv, spaces_of
from dreamerjax.host.interrupt import Interrupt
from dreamerjax.host.load import LoadedAgent, load_run, read_settings
from dreamerjax.host.memory import check_replay_fits
from dreamerjax.host.output import complain
from dreamerjax.host.reporter import Films
from dreamerjax.host.run_folder import RunFolder, RunFolderError, default_run_folder, different_keys
from dreamerjax.host.settings import KEYS, SHORTCUTS, Layer, combine, nested, read_env, read_flags, read_yaml
from dreamerjax.host.summary import final_paragraph

TRAIN_HELP = """\
Trains an agent, or resumes the training in a run folder.

  --env NAME            experiments/envs/NAME.yaml, or family:ID such as gym:Acrobot-v1 (docs/environments.md)
  --obs WHAT            state, pixels or both, where an environment offers more than one
  --backend NAME        auto, cpu, cuda, rocm or tpu (default: auto)
  --run-dir FOLDER      where everything goes (default: runs/<env>-<date>-<time>); resumes if it holds a checkpoint
  --init-from RUN       start from what another run has learned
  --config FILE         more settings, as YAML; may be repeated
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
    parser.add_argument("--profile", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    if given.help:
        print(parser.format_help() + _all_flags())
        return 0
    config = _train_config(given.run_dir, given.config, read_flags(rest))
    _check_source(given.init_from, config)
    # A mistake in these must not leave a run folder behind.
    check_replay_fits(config.replay, spaces_of(config.env), config.agent.model)
    backend = start_backend(given.backend, also_cpu=True, deterministic=config.train.deterministic)
    source = load_run(given.init_from) if given.init_from else None
    config = for_platform(config, backend)
    with RunFolder.open(given.run_dir or default_run_folder(config.env.name)) as folder:
        return _train_in(folder, config, backend, source, profile=given.profile)


def _train_config(run_dir: Path | None, files: Sequence[Path], flags: Layer) -> Config:
    """The settings of a training run: those of its folder or else of its environment, then files, then flags."""
    layers = [read_yaml(file) for file in files]
    stored = read_settings(run_dir) if run_dir else None
    name, obs = (
        next((layer[key] for layer in (flags, *reversed(layers)) if key in layer), None)
        for key in ("env.name", "env.obs")
    )
    if stored is None:
        if not name:
            raise ConfigError("No environment: give --env NAME, such as --env cartpole or --env gym:Acrobot-v1.")
        return combine([*read_env(name, obs), *layers, flags])
    asked = combine(read_env(name, obs)).env if name else stored.env
    config = combine([flatten(stored), {"env.id": asked.id}, *layers, flags])
    if different := different_keys(family_key(stored), family_key(config)):
        raise RunFolderError(
            f"{run_dir} belongs to another environment or architecture: {'; '.join(different)}.\n"
            "It was not touched. Leave these flags out to resume it, or choose another --run-dir."
        )
    return config


def _check_source(source: Path | None, config: Config) -> None:
    """Refuses a run of another environment or architecture to start from."""
    if source is None:
        return
    stored = read_settings(source)
    if stored is None or not has_checkpoint(source / "checkpoints"):
        raise RunFolderError(f"--init-from {source} holds no checkpoint, expected the folder of a run.")
    if different := different_keys(family_key(stored), family_key(config)):
        raise RunFolderError(
            f"--init-from {source} has another environment or architecture: {'; '.join(different)}.\n"
            "Give the same settings here, or another run."
        )


def _train_in(folder: RunFolder, config: Config, backend: Backend, source: LoadedAgent | None, *, profile: bool) -> int:
    from dreamerjax.host.loop import Loop
    from dreamerjax.host.profiler import HOW_TO_OPEN

    display = Display(f"{config.env.name} on {backend.device}")
    with Interrupt(before_exit=display.close) as interrupt, display:
        display.note(f"{config.env.name}, seed {config.seed}, {backend.platform} ({backend.device}), in {folder.path}")
        if backend.note:
            display.note(backend.note)
        if profile:
            display.note(f"Traces go to {folder.path}/profile: {HOW_TO_OPEN}.")
        loop = Loop(config, folder, backend, display, interrupt, profile=profile, film=_film)
        if has_checkpoint(folder.checkpoints):
            loop.resume()
        elif source is not None:
            for note in source.notes:
                display.note(f"{note}.")
            loop.start_from(source)
            display.note(f"Starts from {source.run_dir} at {source.env_steps:,} environment steps.")
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
    from dreamerjax.show.film import film_run  # only now, because it brings what draws, and training starts without

    return film_run(loaded, lent=lent)


def _report(run_dir: Path, display: Display) -> Path | None:
    """Writes the page of a run that has ended; one that cannot be made takes nothing from what was learned."""
    from dreamerjax.show.report import write_report

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
        "\nevery setting, with its default (dreamerjax/config.py explains each):\n"
        + "\n".join(lines)
        + (f"\n\nshort names: {short}\n")
    )
