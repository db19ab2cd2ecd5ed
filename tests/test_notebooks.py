"""The notebooks run from top to bottom, and are kept with pictures that a reader without a kernel can see."""

import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
NAMES = ["explore_dreams", "inside_training", "math_utilities"]
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
    assert not any(cell.metadata for cell in notebook.cells)
    assert "widgets" not in notebook.metadata


@each
def test_each_slider_stands_below_a_picture(file):
    code = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    sliders = [at for at, cell in enumerate(code) if "interact(" in cell.source]
    assert sliders
    for at in sliders:
        assert any(PICTURE in output.get("data", {}) for output in code[at - 1].outputs), code[at].source


@each
def test_it_runs_and_shows_as_many_pictures_as_were_kept(file):
    pytest.importorskip("nbclient")
    sys.path.insert(0, str(file.parent))
    try:
        from execute import execute
    finally:
        sys.path.remove(str(file.parent))
    ran = execute(file)  # raises where a cell fails
    assert problems(ran) == []
    assert len(pictures(ran)) == len(pictures(nbformat.read(file, as_version=4)))
