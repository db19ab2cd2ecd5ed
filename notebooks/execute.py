"""Runs notebooks from top to bottom and keeps their outputs: `python notebooks/execute.py [NOTEBOOK ...]`.

    python notebooks/execute.py notebooks/explore_dreams.ipynb --set RUN=runs/a --out a.ipynb

looks at another run: values of the cell that is tagged `parameters`, as papermill has it, are replaced.

What changes from one run to the next without meaning anything (times, versions, ids of sliders) is left out, so that a
diff shows what is different.
"""

import argparse
import ast
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import zmq
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
PARAMETERS = "parameters"  # the tag of the cell with what one may change
OUTPUT = "@jupyter-widgets/output"
SLIDER = "application/vnd.jupyter.widget-view+json"
ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})  # else the kernel warns of its absence
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Output(OutputWidget):
    """The client's side of an output widget, which `interact` makes; it never loses the kernel's reply.

    The client sends what a widget shows back to the kernel, on the socket on which it waits for the reply of the cell.
    It sends past asyncio, and ZeroMQ announces a message once: a reply that arrived just before is announced to the
    sender, not to the waiting client, which then sleeps until the timeout of the cell, with an idle kernel.
    """

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Sends, then lets asyncio look whether a reply arrived meanwhile."""
        super().send(*args, **kwargs)
        self.kernel_client.shell_channel.socket.get(zmq.EVENTS)


def execute(file: Path, *, timeout: int | None = 300, values: Mapping[str, Any] | None = None) -> NotebookNode:
    """Runs all cells of a notebook in a fresh interpreter, in the folder that it lies in; the file stays as it is.

    Args:
        file: the notebook.
        timeout: seconds that each cell may take; None: any number.
        values: of its parameters, in place of those that stand there.

    Raises:
        ValueError: it has no such parameter.
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
    set_parameters(notebook, values or {})
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        config=ENCRYPTED,
        resources={"metadata": {"path": str(file.parent)}},
        record_timing=False,
    )
    client.widget_registry[OUTPUT]["OutputModel"] = Output
    if sys.platform == "win32":  # where ZeroMQ needs the other loop
        asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    client.execute()
    return notebook


def set_parameters(notebook: NotebookNode, values: Mapping[str, Any]) -> None:
    """Replaces values in the cell that is tagged `parameters`.

    Raises:
        ValueError: there is no such parameter.
    """
    cell = next((cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", ())), None)
    lines = cell.source.splitlines() if cell else []
    places = {line.partition(" = ")[0]: place for place, line in enumerate(lines) if " = " in line}
    for name, value in values.items():
        if name not in places:
            raise ValueError(f"There is no parameter `{name}`, expected one of: {', '.join(places) or 'none here'}.")
        lines[places[name]] = f"{name} = {value!r}"
    if cell:
        cell.source = "\n".join(lines)


def tidy(notebook: NotebookNode) -> NotebookNode:
    """The same notebook without what means nothing to a reader."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {"tags": [PARAMETERS]} if PARAMETERS in cell.metadata.get("tags", ()) else {}
        )
        for output in cell.get("outputs", ()):
            if SLIDER in output.get("data", {}):  # it is alive only beside a kernel
                output.data = nbformat.from_dict({"text/plain": "(sliders: run this cell to move them)"})
    return notebook


def value_of(text: str) -> tuple[str, Any]:
    """NAME=VALUE: a Python literal, or else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is no NAME=VALUE, such as RUN=runs/a")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main() -> None:
    """Runs the named notebooks, or all, and writes them back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="(default: all)")
    parser.add_argument("--set", action="append", default=[], type=value_of, metavar="NAME=VALUE", help="a parameter")
    parser.add_argument("--out", type=Path, help="where the result of one notebook goes, in place of the file itself")
    given = parser.parse_args()
    if (given.out or given.set) and (len(given.notebooks) != 1 or not given.out):
        parser.error(
            "--set and --out go together, and with one notebook: the files here keep what they are written for"
        )
    for file in given.notebooks or sorted(HERE.glob("*.ipynb")):
        began = time.perf_counter()
        try:
            notebook = tidy(execute(file, values=dict(given.set)))
        except ValueError as error:
            parser.error(str(error))
        nbformat.write(notebook, given.out or file)
        size = (given.out or file).stat().st_size / 2**20
        print(f"{file.name}: {time.perf_counter() - began:.0f} s, {size:.2f} MB", flush=True)


if __name__ == "__main__":
    main()
