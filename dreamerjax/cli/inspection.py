"""Commands that evaluate and show a trained agent, or check the back-end: `eval`, `show`, `report`, `selfcheck`."""

import json
import sys
import time

from dreamerjax.cli.common import command_parser, path, start_backend, whole_number
from dreamerjax.config import ConfigError
from dreamerjax.envs import EnvEvent
from dreamerjax.monitoring.summary import count, mean_and_spread
from dreamerjax.runs.load import load_run
from dreamerjax.runtime.backend import BACKENDS
from dreamerjax.training.evaluation import Evaluator, Onlooker, cut_sentence

PROGRESS_EVERY_SECONDS = 10.0


class _ProgressPrinter(Onlooker):
    """Prints the progress of a long evaluation, and the environments' events, on standard error."""

    def __init__(self) -> None:
        self._printed_at, self._topics = time.monotonic(), set[str]()

    def progress(self, finished: int, wanted: int, steps: int) -> None:
        if time.monotonic() - self._printed_at >= PROGRESS_EVERY_SECONDS:
            self._printed_at = time.monotonic()
            print(f"{finished} of {wanted} episodes, step {steps:,}", file=sys.stderr)

    def event(self, event: EnvEvent) -> None:
        if event.note and event.topic not in self._topics:
            self._topics.add(event.topic)
            print(f"note: {event.note}", file=sys.stderr)


def evaluate(arguments: list[str]) -> int:
    """`python run.py eval --run-dir runs/a [--episodes 100] [--seed 0] [--json]`."""
    parser = command_parser("eval", "Plays whole episodes with greedy actions and prints the returns.")
    parser.add_argument("--run-dir", type=path, required=True, help="the run to evaluate")
    parser.add_argument("--episodes", type=whole_number, default=100, help="number of episodes (default: 100)")
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="seed of the episodes' initial states (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--backend", default="auto", help=f"one of {', '.join(BACKENDS)} (default: auto)")
    given = parser.parse(arguments)
    if given.episodes < 1 or given.seed < 0:
        raise ConfigError(
            f"--episodes is {given.episodes} and --seed is {given.seed}, expected --episodes >= 1 and --seed >= 0."
        )
    start_backend(given.backend)
    loaded = load_run(given.run_dir)
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    num_envs = min(given.episodes, loaded.config.eval.num_envs)
    limit = loaded.config.eval.max_episode_steps
    evaluator = Evaluator(loaded.agent, loaded.config.env, num_envs=num_envs, max_episode_steps=limit)
    evaluation = evaluator.run(
        loaded.state.params, episodes=given.episodes, seed=given.seed, onlooker=_ProgressPrinter()
    )
    evaluator.close()
    assert evaluation is not None, "_ProgressPrinter never interrupts"
    if cut := cut_sentence(evaluation, limit):
        print(f"note: {cut}", file=sys.stderr)
    if given.json:
        print(json.dumps(evaluation._asdict()))
    else:
        e = evaluation
        print(
            f"{loaded.config.env.name} after {loaded.env_steps:,} environment steps: "
            f"return {mean_and_spread(e.return_mean, e.return_std, e.episodes)} over "
            f"{count(e.episodes, 'greedy episode')} (lowest {e.return_min:.1f}, highest {e.return_max:.1f}), "
            f"{e.length_mean:.1f} steps on average."
        )
    return 0


def show(arguments: list[str]) -> int:
    """`python run.py show --run-dir runs/a`."""
    parser = command_parser(
        "show", "Draws a run's learning curve and diagnostics, and films its dreams next to real episodes."
    )
    parser.add_argument(
        "--run-dir", type=path, required=True, help="the run; the images and films are written to its folder"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of the episode and the dreams (default: 0)")
    parser.add_argument("--backend", default="cpu", help=f"one of {', '.join(BACKENDS)} (default: cpu)")
    given = parser.parse(arguments)
    start_backend(given.backend)
    from dreamerjax.viz.curves import learning_curve
    from dreamerjax.viz.film import STATE_DREAM, film_run
    from dreamerjax.viz.health import draw_health
    from dreamerjax.viz.video import atomic_write

    loaded = load_run(given.run_dir)
    files = [given.run_dir / "learning_curve.png", given.run_dir / "health.png"]
    learning_curve([given.run_dir], files[0], solve_return=loaded.config.env.solve_return)
    draw_health(given.run_dir, loaded.config, files[1])
    films = film_run(loaded, seed=given.seed)
    files += [film.file for film in films.made]
    missing = list(films.missing)
    for film in films.made:
        if film.name == STATE_DREAM:
            gif = given.run_dir / "dream.gif"
            try:
                with atomic_write(gif) as unfinished:
                    unfinished.write_bytes(film.gif)
                files.append(gif)
            except OSError as error:
                missing.append(str(error))
    print("\n".join(map(str, files)))
    for why in missing:
        print(f"No film: {why}", file=sys.stderr)
    return 0


def report(arguments: list[str]) -> int:
    """`python run.py report --run-dir runs/a`."""
    parser = command_parser(
        "report", "Writes report.html: one page with a run's curves, diagnostics, films and settings."
    )
    parser.add_argument("--run-dir", type=path, required=True, help="the run; the page is written to its folder")
    parser.add_argument("--backend", default="cpu", help=f"one of {', '.join(BACKENDS)} (default: cpu)")
    given = parser.parse(arguments)
    start_backend(given.backend)
    from dreamerjax.viz.report import write_report

    print(write_report(given.run_dir))
    return 0


def selfcheck(arguments: list[str]) -> int:
    """`python run.py selfcheck --backend rocm`."""
    parser = command_parser(
        "selfcheck", "Computes one update on the back-end and on the CPU, and compares the results part by part."
    )
    parser.add_argument("--backend", default="auto", help=f"one of {', '.join(BACKENDS)} (default: auto)")
    backend = start_backend(parser.parse(arguments).backend, also_cpu=True)
    from dreamerjax.runtime.selfcheck import compare_with_cpu

    report = compare_with_cpu(backend)
    print(report.text)
    return 0 if report.passed else 1
