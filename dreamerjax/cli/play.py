"""Commands for agents that have learned something: `play`, into the dream; `export`, to give one away."""

import asyncio
import contextlib
import webbrowser
from pathlib import Path
from typing import Any

from dreamerjax import EXAMPLES
from dreamerjax.cli.common import command_parser, path, start_backend, whole_number
from dreamerjax.config import ConfigError
from dreamerjax.runs.load import load_run
from dreamerjax.runtime.backend import BACKENDS
from dreamerjax.runtime.interrupt import ending_signals
from dreamerjax.runtime.output import Output


def play(arguments: list[str]) -> int:
    """`python run.py play --example cartpole`."""
    parser = command_parser(
        "play", "Opens a page in the browser on which you play inside an agent's dream, beside the real environment."
    )
    parser.add_argument("--run-dir", type=path, help="the run whose dream it is")
    parser.add_argument("--example", help=f"or one of the agents that come along: {', '.join(_examples())}")
    parser.add_argument("--step", type=whole_number, help="the checkpoint of so many steps (default: the newest)")
    parser.add_argument("--port", type=whole_number, default=8123, help="the first port to try (default: 8123)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="who may connect: 0.0.0.0 for every machine (default: this machine only)"
    )
    parser.add_argument("--most", type=whole_number, default=24, help="browsers at a time, at most (default: 24)")
    parser.add_argument("--seed", type=whole_number, default=0, help="of starts and dreams (default: 0)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--backend", default="cpu", help=f"one of {', '.join(BACKENDS)} (default: cpu)")
    given = parser.parse(arguments)
    run_dir = _run_dir(given.run_dir, given.example)
    if not 0 <= given.port < 65536 or given.most < 1 or given.seed < 0:
        raise ConfigError(
            f"--port is {given.port}, --most is {given.most} and --seed is {given.seed}, "
            "expected a port from 0 to 65535, at least 1 and at least 0."
        )
    start_backend(given.backend)
    # Only after the back-end is chosen may anything touch JAX.
    from dreamerjax.inference.dreamer import Dreamer
    from dreamerjax.play.server import PortError, Server, Settings

    dreamer = Dreamer(load_run(run_dir, step=given.step))
    print(f"{dreamer.title}, after {dreamer.loaded.env_steps:,} environment steps.", flush=True)
    server = Server(
        dreamer,
        Settings(
            host=given.host,
            port=given.port,
            most=given.most,
            seed=given.seed,
            recordings=Path("runs/recordings"),
            saved=lambda files: print("Recorded:", *files, flush=True),
        ),
    )
    try:
        asyncio.run(_serve(server, given.port, browser=not given.no_browser))
    except PortError as error:
        raise ConfigError(str(error)) from error
    print("The dream is over.")
    return 0


def export(arguments: list[str]) -> int:
    """`python run.py export --run-dir runs/a --out examples/a`."""
    parser = command_parser(
        "export",
        "Writes an agent to give away: a small run folder that can be loaded, played and forked, but not resumed.\n"
        "It holds the weights in half precision, the settings and the metrics; no optimizer state and no replay.",
    )
    parser.add_argument("--run-dir", type=path, required=True, help="the run")
    parser.add_argument("--out", type=path, required=True, help="the folder to make")
    parser.add_argument(
        "--step", type=whole_number, nargs="+", help="checkpoints to take, in environment steps (default: the newest)"
    )
    given = parser.parse(arguments)
    start_backend("cpu")
    from dreamerjax.runs.export import export

    for folder in export(given.run_dir, given.out, steps=given.step or [None]):
        print(folder)
    return 0


def _examples() -> list[str]:
    """Those that have learned something that can be played."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/checkpoints"))


def _run_dir(run_dir: Path | None, example: str | None) -> Path:
    if (run_dir is None) == (example is None):
        raise ConfigError("Give either --run-dir RUN or --example NAME, such as --example cartpole.")
    if run_dir is not None:
        return run_dir
    if example not in _examples():
        raise ConfigError(f"There is no example `{example}`, expected one of: {', '.join(_examples()) or 'none here'}.")
    return EXAMPLES / str(example)


async def _serve(server: Any, port: int, *, browser: bool) -> None:
    """Until Ctrl-C, or until nobody can read what is printed."""
    stop = asyncio.Event()
    for number in ending_signals():
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.redirect_stdout(Output(lambda lost: stop.set())):  # pyright: ignore[reportArgumentType]
        await _serve_until(stop, server, port, browser=browser)


async def _serve_until(stop: asyncio.Event, server: Any, port: int, *, browser: bool) -> None:
    from dreamerjax.play.server import COMPILING

    await server.start()
    try:
        if port not in (0, server.port):
            print(f"Port {port} is in use: this is {server.port}.")
        print(f"Open {server.url}    (Ctrl-C ends it)", flush=True)
        if browser:
            await asyncio.get_running_loop().run_in_executor(None, webbrowser.open, server.url)
        print(COMPILING, flush=True)
        ended, ready = asyncio.create_task(stop.wait()), asyncio.create_task(server.ready())
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            print("Ready.", flush=True)
        await ended
    finally:
        await server.stop()
