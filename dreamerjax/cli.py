"""The command line: what was typed -> settings -> host, show or lab."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from dreamerjax.config import Config, ConfigError, family_key, flatten
from dreamerjax.host.backend import BACKENDS, Backend, BackendError, enable_compilation_cache, select_backend
from dreamerjax.host.checkpoint import CheckpointError, has_checkpoint
from dreamerjax.host.display import Display
from dreamerjax.host.envs import EnvError, spaces_of
from dreamerjax.host.interrupt import Interrupt
from dreamerjax.host.load import LoadedAgent, load_run, read_settings
from dreamerjax.host.reporter import Film
from dreamerjax.host.run_folder import RunFolder, RunFolderError, default_run_folder, different_keys
from dreamerjax.host.settings import (
    KEYS,
    SHORTCUTS,
    Layer,
    combine,
    did_you_mean,
    nested,
    read_env,
    read_flags,
    read_yaml,
)
from dreamerjax.host.summary import final_paragraph
from dreamerjax.lab.bench_settings import add_flags, read_bench_settings
from dreamerjax.lab.bench_table import compare, comparison_table, read_result, result_table, sweep_table
from dreamerjax.lab.env_speed import env_table, measure_env
from dreamerjax.lab.sweep import sweep, sweep_points

MISTAKES = (ConfigError, EnvError, BackendError, CheckpointError, RunFolderError)
INTERRUPTED = 130  # exit code, as shells have it for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; `train` if none is named.

    Returns:
        The exit code: 0, 2 for the user's mistake, 130 if the user stopped it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "eval": evaluate,
        "show": show,
        "selfcheck": selfcheck,
        "bench": bench,
        "compare": compare_runs,
        "experiment": experiment,
    }
    name = "train" if not arguments or arguments[0].startswith("-") else arguments.pop(0)
    try:
        if name not in commands:
            raise ConfigError(f"Unknown command `{name}`, expected one of {', '.join(commands)}.")
        return commands[name](arguments)
    except MISTAKES as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def train(arguments: list[str]) -> int:
    """`python run.py [train] --env cartpole [flags]`."""
    parser = _parser("train", TRAIN_HELP, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--init-from", type=Path, metavar="RUN")
    parser.add_argument("--config", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--profile", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    if given.help:
        print(parser.format_help() + _all_flags())
        return 0
    config = _train_config(given.run_dir, given.config, read_flags(rest))
    _check_source(given.init_from, config)
    spaces_of(config.env)  # a mistake in its name must not leave a run folder behind
    backend = _start(given.backend, also_cpu=True, deterministic=config.train.deterministic)
    source = load_run(given.init_from) if given.init_from else None
    config = _for_platform(config, backend)
    with RunFolder.open(given.run_dir or default_run_folder(config.env.name)) as folder:
        summary = _train_in(folder, config, backend, source, profile=given.profile)
    sys.stdout.flush()
    if summary["stopped"] == "interrupted":
        # A compilation may still be under way in a thread; nothing waits for it.
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    return 0


def evaluate(arguments: list[str]) -> int:
    """`python run.py eval --run-dir runs/a [--episodes 100] [--seed 0] [--json]`."""
    parser = _parser("eval", "Plays whole episodes with greedy actions and prints the returns.")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run to evaluate")
    parser.add_argument("--episodes", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the starts (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--backend", default="auto", help=f"one of {', '.join(BACKENDS)}")
    given = parser.parse(arguments)
    if given.episodes < 1 or given.seed < 0:
        raise ConfigError(
            f"--episodes is {given.episodes} and --seed is {given.seed}, expected at least 1 and at least 0."
        )
    _start(given.backend)
    # Only after the back-end is chosen may anything touch JAX.
    from dreamerjax.host.evaluate import Evaluator

    loaded = load_run(given.run_dir)
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    copies = min(given.episodes, loaded.config.eval.copies)
    evaluator = Evaluator(loaded.agent, loaded.config.env, copies=copies)
    evaluation = evaluator.run(loaded.state.params, episodes=given.episodes, seed=given.seed)
    evaluator.close()
    assert evaluation is not None, "nobody interrupts it"
    if given.json:
        print(json.dumps(evaluation._asdict()))
    else:
        e = evaluation
        print(
            f"{loaded.config.env.name} after {loaded.env_steps:,} environment steps: "
            f"return {e.return_mean:.1f} ± {e.return_std:.1f} over {e.episodes} greedy episodes "
            f"(lowest {e.return_min:.1f}, highest {e.return_max:.1f}), {e.length_mean:.1f} steps on average."
        )
    return 0


def show(arguments: list[str]) -> int:
    """`python run.py show --run-dir runs/a`."""
    parser = _parser("show", "Draws what a run has learned: its learning curve, and its dreams beside the truth.")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run; the pictures go there")
    parser.add_argument("--seed", type=int, default=0, help="of the episode and the dreams (default: 0)")
    parser.add_argument("--backend", default="cpu", help=f"one of {', '.join(BACKENDS)} (default: cpu)")
    given = parser.parse(arguments)
    _start(given.backend)
    from dreamerjax.show.curves import learning_curve
    from dreamerjax.show.dreams import animate_cartpole, dream_beside_truth
    from dreamerjax.show.film import film_run

    loaded = load_run(given.run_dir)
    files = [given.run_dir / "learning_curve.png"]
    learning_curve([given.run_dir], files[0], solve_return=loaded.config.env.solve_return)
    files += [film.file for film in film_run(loaded, seed=given.seed)]
    if loaded.config.env.id == "gym:CartPole-v1" and loaded.config.env.obs in ("auto", "state"):
        files.append(given.run_dir / "dream.gif")
        animate_cartpole(dream_beside_truth(loaded, seed=given.seed), files[-1])
    print("\n".join(map(str, files)))
    return 0


def compare_runs(arguments: list[str]) -> int:
    """`python run.py compare --published runs/a runs/b`."""
    parser = _parser("compare", "Draws runs over the published learning curve of their task, and says where they end.")
    parser.add_argument("--published", type=Path, nargs="+", required=True, metavar="RUN", help="runs of one task")
    parser.add_argument("--out", type=Path, default=Path("published.png"), help="the picture (default: published.png)")
    parser.add_argument("--json", action="store_true", help="print one JSON array and nothing else")
    given = parser.parse(arguments)
    from dreamerjax.lab.published import compare_published

    try:
        verdicts = compare_published(given.published, given.out)
    except OSError as error:
        raise RunFolderError(f"{error.filename or given.out}: {error.strerror or error}.") from error
    if given.json:
        print(json.dumps([{**verdict._asdict(), "verdict": verdict.word} for verdict in verdicts]))
        return 0
    for v in verdicts:
        print(
            f"{v.name}: return {v.ours:.1f} at {v.frames:,} frames, {v.word} the published {v.lowest:.1f} to "
            f"{v.highest:.1f} (mean {v.mean:.1f})."
        )
    print(given.out)
    return 0


def experiment(arguments: list[str]) -> int:
    """`python run.py experiment experiments/hypotheses/NAME.yaml [--jobs 2]`."""
    parser = _parser("experiment", EXPERIMENT_HELP)
    parser.add_argument("hypothesis", type=Path, nargs="+", help="the file of a hypothesis; several are made in turn")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--allow-many-changes", action="store_true", help="accept a hypothesis of several changes")
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="(default: runs/experiments)")
    parser.add_argument("--log", type=Path, default=Path("experiments/LOG.md"), help="(default: experiments/LOG.md)")
    given = parser.parse(arguments)
    if given.jobs < 1:
        raise ConfigError(f"--jobs is {given.jobs}, expected 1 or more.")
    from dreamerjax.lab.experiment import run_experiment
    from dreamerjax.lab.hypothesis import read_hypothesis
    from dreamerjax.lab.report import append_log, in_words, write_report

    hypotheses = [read_hypothesis(file, allow_many_changes=given.allow_many_changes) for file in given.hypothesis]
    with Display("experiment") as display, Interrupt(before_exit=display.close) as interrupt:
        for hypothesis in hypotheses:
            display.note(f"{hypothesis.name}: {hypothesis.sentence}")
            result = run_experiment(
                hypothesis, at_once=given.jobs, say=display.note, interrupted=lambda: interrupt.requested is not None
            )
            if result is None:
                display.note("Stopped; the runs are saved, and the same command goes on.")
                return INTERRUPTED
            report = write_report(result, given.out / hypothesis.name)
            append_log(result, given.log)
            display.note(f"{in_words(result)}\n{report}")
    return 0


def selfcheck(arguments: list[str]) -> int:
    """`python run.py selfcheck --backend rocm`."""
    parser = _parser("selfcheck", "Makes one real update on the back-end and on the CPU, and compares every number.")
    parser.add_argument("--backend", default="auto", help=f"one of {', '.join(BACKENDS)}")
    backend = _start(parser.parse(arguments).backend, also_cpu=True)
    from dreamerjax.host.selfcheck import compare_with_cpu

    report = compare_with_cpu(backend)
    print(report.text)
    return 0 if report.passed else 1


def bench(arguments: list[str]) -> int:
    """`python run.py bench [--size 1m] [--json]`, `bench --sweep size=300k,1m`, `bench --compare A.json B.json`."""
    parser = _parser("bench", BENCH_HELP)
    add_flags(parser)
    parser.add_argument("--backend", default="auto", help=f"one of {', '.join(BACKENDS)} (default: auto)")
    given = parser.parse(arguments)
    if given.compare:
        comparison = compare(*map(read_result, given.compare))
        _print(comparison, comparison_table(comparison, *given.compare), as_json=given.json)
        return 0
    if given.env:
        env = combine(read_env(given.env)).env
        results = measure_env(env)
        _print(results, env_table(results, given.env), as_json=given.json)
        return 0
    settings = read_bench_settings(given)
    if given.sweep:
        key, lines = sweep_points(arguments, given.sweep)
        for line in lines.values():
            read_bench_settings(parser.parse(line))  # a mistake in the last point is told before the first is measured
        with Console(stderr=True).status(f"{key}: measuring") as status:
            points = list(sweep(lines, rounds=settings.rounds, say=lambda text: status.update(f"{key} {text}")))
        _print([result for _, result in points], sweep_table(key, points), as_json=given.json)
        return int(any("error" in result for _, result in points))
    backend = _start(given.backend)
    from dreamerjax.lab.bench import measure

    settings = dataclasses.replace(settings, config=_for_platform(settings.config, backend))
    with Console(stderr=True).status("starting") as status:
        result = measure(settings, backend, say=status.update)
    _print(result, result_table(result), as_json=given.json)
    return 0


def _print(content: Any, table: Table, *, as_json: bool) -> None:
    """One JSON value and nothing else, or a table for people."""
    if as_json:
        print(json.dumps(content))
    else:
        Console().print(table)


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
    binding = [{**family_key(c), "env.copies": c.env.copies} for c in (stored, config)]
    if different := different_keys(*binding):
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


def _for_platform(config: Config, backend: Backend) -> Config:
    """Decides what the settings leave to "auto"."""
    agent, train, accelerator = config.agent, config.train, backend.platform != "cpu"
    if agent.precision == "auto":
        agent = dataclasses.replace(agent, precision="bfloat16" if accelerator else "float32")
    if train.collection == "auto":
        train = dataclasses.replace(train, collection="overlapped" if accelerator else "interleaved")
    return dataclasses.replace(config, agent=agent, train=train)


def _train_in(
    folder: RunFolder, config: Config, backend: Backend, source: LoadedAgent | None, *, profile: bool
) -> dict[str, Any]:
    from dreamerjax.host.loop import Loop
    from dreamerjax.host.profiler import HOW_TO_OPEN

    title = f"{config.env.name} on {backend.device}"
    with Display(title) as display, Interrupt(before_exit=display.close) as interrupt:
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
            loop.learner.adopt(source.state)
            display.note(f"Starts from {source.run_dir} at {source.env_steps:,} environment steps.")
        folder.write_config(nested(config))
        summary = loop.run()
        display.finish(final_paragraph(summary))
    return summary


def _film(loaded: LoadedAgent) -> list[Film]:
    from dreamerjax.show.film import film_run  # only now, because it brings what draws, and training starts without

    return film_run(loaded)


def _start(name: str, *, also_cpu: bool = False, deterministic: bool = False) -> Backend:
    backend = select_backend(name, also_cpu=also_cpu, deterministic=deterministic)
    enable_compilation_cache()
    return backend


class _Parser(argparse.ArgumentParser):
    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """As `parse_args`, with a hint where a flag is misspelt."""
        given, rest = self.parse_known_args(arguments)
        if rest:
            flag = rest[0].partition("=")[0]
            hint = did_you_mean(flag, list(self._option_string_actions))
            raise ConfigError(f"Unknown flag `{flag}`.{hint}\n`{self.prog} --help` shows what there is.")
        return given

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}.\n`{self.prog} --help` shows what there is.")


def _parser(command: str, description: str, **options: Any) -> _Parser:
    return _Parser(
        prog=f"python run.py {command}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


BENCH_HELP = """\
Measures how fast updates are, how well they use the machine, what compiling and memory cost, and the parts.

Without flags: size 1m, 16 windows of 64 rows, 15 imagined steps, 4 numbers to see and 2 actions, the published
settings of dreamerjax/config.py. Every timed call gets rows that were drawn afresh from a replay of random rows.
"""

EXPERIMENT_HELP = """\
Tests a hypothesis: makes the runs of its baseline and of its change, and says what they show.

Runs that have ended are not made again, and a baseline that several hypotheses share is made once. Ctrl-C saves every
run; the same command goes on. The report is in runs/experiments/NAME, and one entry is added to experiments/LOG.md.
"""

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
