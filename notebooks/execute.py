"""Runs notebooks from top to bottom and keeps their outputs: `python notebooks/execute.py [NOTEBOOK ...]`.

What changes from one run to the next without meaning anything (times, versions, ids of sliders) is left out, so that a
diff shows what is different.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import zmq
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
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


def execute(file: Path, *, timeout: int | None = 300) -> NotebookNode:
    """Runs all cells of a notebook in a fresh interpreter, in the folder that it lies in; the file stays as it is.

    Args:
        file: the notebook.
        timeout: seconds that each cell may take; None: any number.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(file, as_version=4)
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


def tidy(notebook: NotebookNode) -> NotebookNode:
    """The same notebook without what means nothing to a reader."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", ()):
            if SLIDER in output.get("data", {}):  # it is alive only beside a kernel
                output.data = nbformat.from_dict({"text/plain": "(sliders: run this cell to move them)"})
    return notebook


def main(names: list[str]) -> None:
    """Runs the named notebooks, or all, and writes them back."""
    for file in map(Path, names) if names else sorted(HERE.glob("*.ipynb")):
        began = time.perf_counter()
        notebook = tidy(execute(file))
        nbformat.write(notebook, file)
        print(f"{file.name}: {time.perf_counter() - began:.0f} s, {file.stat().st_size / 2**20:.2f} MB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
