"""The text of a chapter as a notebook: read, parametrised, and with stored outputs for the cells that are compared."""

from pathlib import Path

import jupytext
import nbformat
from jsonschema import ValidationError
from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from yaml import YAMLError

from dlatlas.publish.errors import UserError
from dlatlas.publish.files import read_json, whole, write_json
from dlatlas.publish.layout import Layout

KERNEL = "python3"
PARAMETERS, INJECTED, COMPARED = "parameters", "injected-parameters", "nbval-check-output"

# A picture differs by a pixel between machines, and says nothing that a test could compare.
_NOT_COMPARED = ("image/png", "image/jpeg", "image/svg+xml")


def read_page(page: Path) -> NotebookNode:
    """Notebook of a text file as it stands.

    Raises
    ------
    UserError
        When it is no MyST notebook.
    """
    try:
        return jupytext.read(page)
    except (ValueError, ValidationError, YAMLError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{page.parent.name}/{page.name} cannot be read as a notebook: {reason}") from error


def load(chapter: str, layout: Layout) -> NotebookNode:
    """Notebook of a chapter with the profile in its parameters cell.

    Papermill adds a cell with the parameters; its content replaces the parameters cell, so that cells keep the numbers
    that they have in the text.

    Raises
    ------
    UserError
        When it is no MyST notebook, or no cell is tagged ``parameters``.
    """
    page = layout.notebook(chapter)
    notebook = read_page(page)
    if not any(PARAMETERS in tags(cell) for cell in notebook.cells):
        raise UserError(f"{page.relative_to(layout.root)}: no cell is tagged `{PARAMETERS}`")
    notebook.metadata.kernelspec = {"name": KERNEL, "language": "python", "display_name": "Python 3"}
    notebook = parameterize_notebook(load_notebook_node(notebook), {"profile": layout.profile})
    _fold_parameters(notebook)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def _fold_parameters(notebook: NotebookNode) -> None:
    injected = next(cell for cell in notebook.cells if INJECTED in tags(cell))
    given = next(cell for cell in notebook.cells if PARAMETERS in tags(cell))
    given.source = injected.source.removeprefix("# Parameters\n").strip()
    notebook.cells.remove(injected)


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Cells that are run, in order; the first has number 1 in messages."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def expected_file(chapter: str, layout: Layout) -> Path:
    """Where the outputs are stored that nbval compares."""
    return layout.root / "tests" / "notebooks" / "expected" / f"{chapter}.json"


def store_expected(executed: NotebookNode, chapter: str, layout: Layout) -> int:
    """Store the outputs of the compared cells of an executed notebook; return how many cells there are."""
    outputs = [_comparable(cell.outputs) for cell in _compared(executed)]
    write_json(outputs, expected_file(chapter, layout))
    return len(outputs)


def _comparable(outputs: list[NotebookNode]) -> list[NotebookNode]:
    for output in outputs:
        for mime in _NOT_COMPARED:
            output.get("data", {}).pop(mime, None)
    return outputs


def _compared(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if COMPARED in tags(cell)]


def write_for_nbval(chapter: str, layout: Layout) -> Path:
    """Write the notebook that nbval runs: unexecuted, with the stored outputs in the cells that it compares.

    Raises
    ------
    UserError
        When the stored outputs do not belong to these cells.
    """
    notebook = load(chapter, layout)
    compared, stored = _compared(notebook), expected_file(chapter, layout)
    outputs = read_json(stored) if stored.is_file() else []
    if len(compared) != len(outputs):
        raise UserError(
            f"{chapter}: {len(compared)} cells are tagged `{COMPARED}`, outputs are stored for {len(outputs)}; "
            f"run `dlatlas expected {chapter}` and look at the difference"
        )
    for cell, expected in zip(compared, outputs, strict=True):
        cell.outputs = [nbformat.from_dict(output) for output in expected]
        cell.execution_count = 1  # nbval refuses to compare with a cell that looks as if it had not been run.
    file = layout.build / "nbval" / f"{chapter}.ipynb"
    with whole(file) as half:
        nbformat.write(notebook, half)
    return file
