"""The source notebook of an assignment, with solutions and hidden tests, made of exercises."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dlatlas.publish.assignments.course import Course
from dlatlas.publish.assignments.markdown import context, plain
from dlatlas.publish.assignments.references import References
from dlatlas.publish.assignments.selection import Selected
from dlatlas.publish.assignments.slicing import Statement
from dlatlas.publish.errors import UserError
from dlatlas.publish.notebooks import KERNEL

MANIFEST = "dlatlas"
_WIDTH = 84
# What nbgrader's metadata says of a cell that nothing is said about.
_UNGRADED = {"grade": False, "locked": False, "schema_version": 3, "solution": False, "task": False}


def assignment_notebook(name: str, course: Course, selected: list[Selected]) -> NotebookNode:
    """Notebook from which nbgrader makes the students' version."""
    cells = [_opening(name, course, selected), _install(course), _imports(name, selected)]
    for number, chosen in enumerate(selected, start=1):
        cells += _exercise(number, chosen)
    for position, cell in enumerate(cells):
        cell.id = f"{name}-{position}"
    kernel = {"name": KERNEL, "language": "python", "display_name": "Python 3"}
    manifest = _manifest(name, selected, cells)
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, MANIFEST: manifest})


def _manifest(name: str, selected: list[Selected], cells: list[NotebookNode]) -> dict[str, Any]:
    """What the notebook should hold, so that a student's copy can be compared with it."""
    return {
        "assignment": name,
        "cells": [cell.metadata.nbgrader.grade_id for cell in cells if "nbgrader" in cell.metadata],
        "exercises": [
            {
                "label": chosen.exercise.label,
                "title": chosen.exercise.title,
                "cells": [part.grade_id for part in chosen.exercise.parts if part.grade_id],
            }
            for chosen in selected
        ],
    }


def _opening(name: str, course: Course, selected: list[Selected]) -> NotebookNode:
    assignment = course.assignments[name]
    total = sum(chosen.points for chosen in selected)
    facts = [f"{len(selected)} exercise{'s' * (len(selected) > 1)}, {total:g} points"]
    facts += [f"about {assignment.minutes} minutes"] if assignment.minutes else []
    facts += [f"due {shown_date(assignment.due)}"] if assignment.due else []
    return new_markdown_cell(
        f"# {assignment.title}\n\n*{course.name}, assignment `{name}`: {', '.join(facts)}.*\n\n"
        "Replace each `raise NotImplementedError()` by your code and each `YOUR ANSWER HERE` by your text; mathematics "
        "goes between dollar signs. Cells with tests are locked: they are graded as they were handed out, together "
        "with tests that you do not see. Write your predictions before you run the cells below them.\n\n"
        "Before you hand in: *Restart the kernel and run all cells*, save, and run "
        f"`dlatlas validate {name}.ipynb` in a terminal. Hand in the file `{name}.ipynb` under that name."
    )


def shown_date(moment: datetime) -> str:
    """Date and time for a reader, with the time zone."""
    zone = moment.strftime("%z")
    return f"{moment:%A, %d %B %Y, %H:%M} (UTC{zone[:3]}:{zone[3:5]})"


def _install(course: Course) -> NotebookNode:
    return new_code_cell(
        "# The package of the book. In Colab, or wherever it is not installed yet, this cell installs it.\n"
        "from importlib.util import find_spec\n\n"
        'if find_spec("dlatlas") is None:\n'
        f'    %pip install --quiet "{course.package}"'
    )


def _imports(name: str, selected: list[Selected]) -> NotebookNode:
    imports = [statement for chosen in selected for statement in chosen.needed if statement.is_import]
    return _locked(f"{name}-imports", import_block(imports))


def import_block(imports: Iterable[Statement]) -> str:
    """Import statements in order, those from one module together.

    Raises
    ------
    UserError
        When two chapters use one name for different things.
    """
    sources: dict[str, str] = {}
    for statement in imports:
        (bound,) = statement.binds
        if sources.setdefault(bound, statement.source) != statement.source:
            raise UserError(f"one name for two imports: {sources[bound]!r} and {statement.source!r}")
    modules: dict[str, list[str]] = {}
    for source in dict.fromkeys(sources.values()):
        origin, _, imported = source.partition(" import ") if source.startswith("from ") else (source, "", "")
        modules.setdefault(origin, []).append(imported)
    lines = [_import_line(origin, names) for origin, names in modules.items()]
    standard = [line for line in lines if line.startswith("import ")]
    ours = [line for line in lines if line.startswith("from dlatlas")]
    others = [line for line in lines if line not in standard and line not in ours]
    return "\n".join(sorted(standard) + sorted(others) + sorted(ours))


def _import_line(origin: str, names: list[str]) -> str:
    if origin.startswith("import "):
        return origin
    line = f"{origin} import {', '.join(sorted(names))}"
    return line if len(line) <= _WIDTH else f"{origin} import (\n    " + ",\n    ".join(sorted(names)) + ",\n)"


def _exercise(number: int, chosen: Selected) -> list[NotebookNode]:
    exercise, references = chosen.exercise, chosen.references
    cells = [new_markdown_cell(_statement(number, chosen))]
    if set_up := chosen.set_up:
        cells.append(_locked(f"{exercise.label}-set-up", f"# From the chapter.\n{set_up}"))
    for part in exercise.parts:
        cells.append(_part(part.cell, references, chosen.factor) if part.grade_id else _shown(part.cell, references))
    return cells


def _statement(number: int, chosen: Selected) -> str:
    exercise, references = chosen.exercise, chosen.references
    heading = f"## Exercise {number}. {exercise.title} ({chosen.points:g} points)"
    text = f"{heading}\n\n{plain(exercise.statement, references)}"
    released = [part.cell.source for part in exercise.parts if not part.is_code and not part.is_solution]
    if about := context("\n\n".join([exercise.statement, *released]), references):
        text += f"\n\n---\n*From the chapter “{references.title}”:*\n\n{about}"
    return text


def _part(cell: NotebookNode, references: References, factor: float) -> NotebookNode:
    """A graded cell, with its points on the scale of the course."""
    grading = _UNGRADED | cell.metadata["nbgrader"]
    if grading.get("grade"):
        grading["points"] = grading["points"] * factor
    if cell.cell_type == "code":
        return new_code_cell(_announced(cell.source), metadata={"nbgrader": grading})
    return new_markdown_cell(plain(cell.source, references), metadata={"nbgrader": grading})


def _announced(source: str) -> str:
    """Source of a cell; one that is nothing but hidden tests says so, rather than be empty in the students' version."""
    return f"# Tests that you do not see run here.\n{source}" if source.startswith("### BEGIN HIDDEN TESTS") else source


def _shown(cell: NotebookNode, references: References) -> NotebookNode:
    if cell.cell_type == "code":
        return new_code_cell(cell.source)
    return new_markdown_cell(plain(cell.source, references))


def _locked(grade_id: str, source: str) -> NotebookNode:
    """A code cell that grading restores when a student has changed it."""
    return new_code_cell(source, metadata={"nbgrader": _UNGRADED | {"grade_id": grade_id, "locked": True}})
