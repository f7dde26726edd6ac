"""From the text of a chapter to the notebook that is run, and to the one that nbval compares."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from dlatlas.publish.errors import UserError
from dlatlas.publish.files import read_json, write_json
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import (
    code_cells,
    expected_file,
    load,
    store_expected,
    write_for_nbval,
)
from tests.publish.project import Project

CHAPTER = "theory/alpha"
COMPARED = ":tags: [nbval-check-output]\nprint(1 + 1)"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    Project(tmp_path).page(
        "alpha", COMPARED, "print('not compared')", ":tags: [nbval-check-output, remove-input]\n2 + 2"
    )
    return Layout(tmp_path, "smoke")


def executed(layout: Layout) -> nbformat.NotebookNode:
    notebook = load(CHAPTER, layout)
    cells = code_cells(notebook)
    cells[1].outputs = [nbformat.v4.new_output("stream", text="2\n")]
    cells[2].outputs = [nbformat.v4.new_output("stream", text="not compared\n")]
    cells[3].outputs = [nbformat.v4.new_output("display_data", data={"text/plain": "4", "image/png": "iVBORw"})]
    return notebook


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_the_parameters_cell_holds_the_profile_and_stays_one_cell(layout: Layout, profile: str) -> None:
    notebook = load(CHAPTER, Layout(layout.root, profile))
    assert code_cells(notebook)[0].source == f'profile = "{profile}"'
    assert len(code_cells(notebook)) == 4


def test_a_notebook_is_read_the_same_way_twice(layout: Layout) -> None:
    assert nbformat.writes(load(CHAPTER, layout)) == nbformat.writes(load(CHAPTER, layout))


def test_a_page_without_parameters_is_refused(layout: Layout) -> None:
    page = layout.notebook(CHAPTER)
    page.write_text(page.read_text().replace(":tags: [parameters]\n", ""))
    with pytest.raises(UserError, match=r"notebooks/theory/alpha\.md: no cell is tagged `parameters`"):
        load(CHAPTER, layout)


def test_nbval_gets_the_stored_outputs_in_the_compared_cells_only(layout: Layout) -> None:
    assert store_expected(executed(layout), CHAPTER, layout) == 2
    cells = code_cells(nbformat.read(write_for_nbval(CHAPTER, layout), as_version=4))
    assert [len(cell.outputs) for cell in cells] == [0, 1, 0, 1]
    assert cells[1].outputs[0].text == "2\n"
    assert cells[3].outputs[0].data == {"text/plain": "4"}


@pytest.mark.parametrize(("stored", "status"), [("2\n", 0), ("3\n", 1)])
def test_nbval_compares_the_stored_outputs(layout: Layout, stored: str, status: int) -> None:
    notebook = executed(layout)
    code_cells(notebook)[1].outputs[0].text = stored
    code_cells(notebook)[3].outputs = [
        nbformat.v4.new_output("execute_result", data={"text/plain": "4"}, execution_count=1)
    ]
    store_expected(notebook, CHAPTER, layout)
    file = write_for_nbval(CHAPTER, layout)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-p",
        "no:cacheprovider",
        str(file),
    ]
    finished = subprocess.run(command, cwd=layout.root, capture_output=True, text=True, check=False)
    assert finished.returncode == status, finished.stdout
    assert ("Cell 1" in finished.stdout) == bool(status)


def test_pictures_are_not_compared(layout: Layout) -> None:
    store_expected(executed(layout), CHAPTER, layout)
    assert "image/png" not in expected_file(CHAPTER, layout).read_text()


def test_outputs_stored_for_other_cells_are_refused(layout: Layout) -> None:
    store_expected(executed(layout), CHAPTER, layout)
    stored = expected_file(CHAPTER, layout)
    write_json(read_json(stored)[:1], stored)
    message = r"2 cells are tagged .* outputs are stored for 1; run `dlatlas expected theory/alpha`"
    with pytest.raises(UserError, match=message):
        write_for_nbval(CHAPTER, layout)


def test_missing_stored_outputs_are_refused(layout: Layout) -> None:
    with pytest.raises(UserError, match="outputs are stored for 0"):
        write_for_nbval(CHAPTER, layout)
