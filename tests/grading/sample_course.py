"""A small course folder: one assignment, as nbgrader makes it, and submissions for it."""

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

NAME = "hw1"

SCALED = """def scaled(z, temperature):
    \"\"\"Softmax of z / temperature over the last axis.\"\"\"
    ### BEGIN SOLUTION
    return torch.softmax(z / temperature, -1)
    ### END SOLUTION
"""
SCALED_VISIBLE = """z = torch.tensor([[1.0, 2.0, 4.0]])
torch.testing.assert_close(scaled(z, 1.0), torch.softmax(z, -1))
"""
SCALED_HIDDEN = """assert scaled(z, 2.0).shape == z.shape
### BEGIN HIDDEN TESTS
### HINT: What happens at other temperatures?
generator = torch.Generator().manual_seed(7310)
fresh = torch.randn(5, 3, generator=generator, dtype=torch.float64)
expected = (fresh / 0.3).exp() / (fresh / 0.3).exp().sum(-1, keepdim=True)
torch.testing.assert_close(scaled(fresh, 0.3), expected)
### END HIDDEN TESTS
"""
PENALTY = """def penalty(w):
    \"\"\"Sum of log(cosh(w)).\"\"\"
    ### BEGIN SOLUTION
    return torch.log(torch.cosh(w)).sum()
    ### END SOLUTION
"""
PENALTY_HIDDEN = """w = torch.linspace(-2, 2, 7, dtype=torch.float64)
### BEGIN HIDDEN TESTS
torch.testing.assert_close(torch.func.grad(penalty)(w), torch.tanh(w))
torch.testing.assert_close(torch.func.hessian(penalty)(w), torch.diag(1 / torch.cosh(w) ** 2))
### END HIDDEN TESTS
"""


def _graded(source: str, grade_id: str, **grading: Any) -> NotebookNode:
    known = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
    new_cell = new_markdown_cell if grading.pop("text", False) else new_code_cell
    return new_cell(source, metadata={"nbgrader": known | {"grade_id": grade_id} | grading})


def source_notebook() -> NotebookNode:
    """The instructor's notebook: 10 points for code, 4 for a written answer."""
    return new_notebook(
        cells=[
            new_markdown_cell("# A small assignment"),
            _graded("import torch\n%matplotlib inline", "imports", locked=True),
            _graded(SCALED, "scaled", solution=True),
            _graded(SCALED_VISIBLE, "scaled-visible", grade=True, locked=True, points=2),
            _graded(SCALED_HIDDEN, "scaled-hidden", grade=True, locked=True, points=3),
            new_code_cell("shown = [scaled(z, t) for t in (0.5, 1.0, 2.0)]\nprint(len(shown))"),
            _graded(PENALTY, "penalty", solution=True),
            _graded(PENALTY_HIDDEN, "penalty-hidden", grade=True, locked=True, points=5),
            _graded("Because.", "explain", grade=True, solution=True, points=4, text=True),
        ]
    )


def make_course(folder: Path) -> Path:
    """Course folder with the assignment released and nothing handed in."""
    source = folder / "source" / NAME / f"{NAME}.ipynb"
    source.parent.mkdir(parents=True)
    nbformat.write(source_notebook(), source)
    (folder / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.db_url = "sqlite:///gradebook.db"\n'
    )
    config = Config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.db_url = f"sqlite:///{folder / 'gradebook.db'}"
    with pytest.MonkeyPatch.context() as environment:
        # nbgrader calls programs of this environment by their names.
        environment.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        with Gradebook(config.CourseDirectory.db_url) as gradebook:
            gradebook.add_assignment(NAME)
        result = NbGraderAPI(config=config).generate_assignment(NAME)
    assert result["success"], result
    return folder


def solved(**answers: str) -> NotebookNode:
    """The reference solution, with some cells replaced."""
    notebook = source_notebook()
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return notebook


def with_cell(source: str, position: int = 2) -> NotebookNode:
    """The reference solution, with a cell of the student's own."""
    notebook = solved()
    notebook.cells.insert(position, new_code_cell(source))
    return notebook


def hand_in(course: Path, student: str, notebook: NotebookNode) -> Path:
    """Put a notebook where nbgrader collects it."""
    file = course / "submitted" / student / NAME / f"{NAME}.ipynb"
    file.parent.mkdir(parents=True)
    nbformat.write(notebook, file)
    return file
