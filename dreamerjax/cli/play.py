"""Commands that use a trained agent: `play` opens its dream in the browser; `export` writes it to share."""

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
        "play", "Opens a page in the browser to play in an agent's dream, next to the real environment."
    )
    parser.add_argument("--run-dir", type=path, help="the run to load the agent from")
    parser.add_argument("--example", help=f"an agent included in the package: {', '.join(_examples())}")
    parser.add_argument(
        "--step", type=whole_number, help="load the checkpoint at this environment step (default: the newest)"
    )
    parser.add_argument("--port", type=whole_number, default=8123, help="the first port to try (default: 8123)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on: 0.0.0.0 accepts connections from other machines (default: 127.0.0.1, this machine)",
    )
    parser.add_argument(
        "--most", type=whole_number, default=24, help="maximum number of browsers at the same time (default: 24)"
    )
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="seed of the environments and the dreams (default: 0)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address without opening a browser")
    parser.add_argument("--backend", default="cpu", help=f"one of {', '.join(BACKENDS)} (default: cpu)")
    given = parser.parse(arguments)
    run_dir = _run_dir(given.run_dir, given.example)
    if not 0 <= given.port < 65536 or given.most < 1 or given.seed < 0:
        raise ConfigError(
            f"--port is {given.port}, --most is {given.most} and --seed is {given.seed}, "
            "expected --port from 0 to 65535, --most >= 1 and --seed >= 0."
        )
    start_backend(given.backend)
    # Deferred: these modules use JAX, which needs the back-end first.
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
    print("Server stopped.")
    return 0


def export(arguments: list[str]) -> int:
    """`python run.py export --run-dir runs/a --out examples/a`."""
    parser = command_parser(
        "export",
        "Exports an agent to share: a small run folder to load, play or fork, but not to resume. It contains the "
        "weights in half precision, the settings and the metrics, but neither the optimizer state nor the replay "
        "buffer.",
    )
    parser.add_argument("--run-dir", type=path, required=True, help="the run to export")
    parser.add_argument("--out", type=path, required=True, help="the folder to create")
    parser.add_argument(
        "--step", type=whole_number, nargs="+", help="checkpoints to export, by environment step (default: the newest)"
    )
    given = parser.parse(arguments)
    start_backend("cpu")
    from dreamerjax.runs.export import export

    for folder in export(given.run_dir, given.out, steps=given.step or [None]):
        print(folder)
    return 0


def _examples() -> list[str]:
    """Names of the included agents that have a checkpoint."""
    return sorted(path.parent.name for path in EXAMPLES.glob("*/checkpoints"))


def _run_dir(run_dir: Path | None, example: str | None) -> Path:
    if (run_dir is None) == (example is None):
        raise ConfigError("Give exactly one of --run-dir RUN and --example NAME, such as --example cartpole.")
    if run_dir is not None:
        return run_dir
    if example not in _examples():
        raise ConfigError(
            f"Unknown example `{example}`, expected one of: {', '.join(_examples()) or '(none installed)'}."
        )
    return EXAMPLES / str(example)


async def _serve(server: Any, port: int, *, browser: bool) -> None:
    """Serves until Ctrl-C, or until standard output is lost."""
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
            print(f"Port {port} is in use, using {server.port}.")
        print(f"Open {server.url}    (Ctrl-C stops the server)", flush=True)
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
