"""The notebooks run from top to bottom, and are kept with pictures that a reader without a kernel can see."""

import importlib
import select
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
NAMES = ["cartpole_dreams", "explore_dreams", "inside_training", "math_utilities"]
PICTURE = "image/png"
LARGEST = 1_500_000  # bytes of one notebook

each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook):
    return [output for output in outputs(notebook) if PICTURE in output.get("data", {})]


def problems(notebook):
    """Errors, and whatever a cell wrote to standard error: a warning is a mistake."""
    return [output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"]


def test_all_notebooks_are_there():
    assert [file.stem for file in NOTEBOOKS] == NAMES


@each
def test_what_is_kept_reads_well_without_a_kernel(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert file.stat().st_size <= LARGEST
    assert problems(notebook) == []
    assert len(pictures(notebook)) >= 5
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "not run from top to bottom"
    # What `notebooks/execute.py` leaves out, so that diffs stay small.
    assert all(cell.metadata in ({}, {"tags": ["parameters"]}) for cell in notebook.cells)
    assert "widgets" not in notebook.metadata


@each
def test_each_slider_stands_below_a_picture(file):
    code = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    sliders = [at for at, cell in enumerate(code) if "interact(" in cell.source]
    assert sliders
    for at in sliders:
        assert any(PICTURE in output.get("data", {}) for output in code[at - 1].outputs), code[at].source


@pytest.fixture(scope="module")
def execute():
    """`notebooks/execute.py`'s function."""
    pytest.importorskip("nbclient")
    folder = str(NOTEBOOKS[0].parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("execute").execute
    finally:
        sys.path.remove(folder)


@pytest.mark.timeout(1800)
@each
def test_it_runs_and_shows_as_many_pictures_as_were_kept(file, execute, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # it computes for minutes: programs that compile quickly would take longer
    ran = execute(file, timeout=None)  # raises where a cell fails
    assert problems(ran) == []
    assert len(pictures(ran)) == len(pictures(nbformat.read(file, as_version=4)))


WAITING = """
import pathlib, time
from ipywidgets import interact
interact(lambda x: print(x), x=(0, 9))
while not pathlib.Path("sending").exists():
    time.sleep(0.01)
"""


def test_a_reply_that_arrives_before_the_client_sends_is_not_lost(tmp_path, execute, monkeypatch):
    """The client would wait for it without end: it has no timeout here."""
    from nbclient.output_widget import OutputWidget

    arrived = []

    def send_late(widget, *args, **kwargs):
        (tmp_path / "sending").touch()
        arrived.extend(select.select([widget.kernel_client.shell_channel.socket.FD], [], [], 60)[0])
        send(widget, *args, **kwargs)

    send = OutputWidget.send
    monkeypatch.setattr(OutputWidget, "send", send_late)
    notebook = tmp_path / "sliders.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in (WAITING, "print('and on')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    ran = execute(notebook, timeout=None)
    assert len(arrived) == 1
    assert outputs(ran)[-1].text == "and on\n"
