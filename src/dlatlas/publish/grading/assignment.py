"""The assignment as the instructor wrote it: cells, tests and their hidden parts, exercises."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.preprocessors import ClearHiddenTests

from dlatlas.publish.assignments.notebook import MANIFEST
from dlatlas.publish.errors import UserError
from dlatlas.publish.grading.names import bound_names, imported_modules, imports_of, used_names

_HINT = re.compile(r"(?m)^[ \t]*### HINT:?[ \t]*(.+)$")


@dataclass(frozen=True)
class Cell:
    """A cell of the instructor's notebook.

    ``source`` holds all of a test; ``visible`` what students have been given of it.
    """

    kind: str  # text, code, solution (code), answer (text), test
    grade_id: str | None
    source: str
    visible: str
    points: float
    graded: bool

    @property
    def is_hidden(self) -> bool:
        """Whether students have not seen all of this test."""
        return self.kind == "test" and self.source != self.visible

    @property
    def hint(self) -> str | None:
        """What a student may be told when the hidden test fails: a line `### HINT: ...` in it."""
        found = _HINT.search(self.source)
        return found[1].strip() if self.is_hidden and found else None


@dataclass(frozen=True)
class Exercise:
    """Graded cells that belong together."""

    name: str
    title: str
    cells: tuple[Cell, ...]

    @property
    def points(self) -> float:
        """Points that can be had."""
        return sum(cell.points for cell in self.cells)


class Assignment:
    """An assignment: the instructor's notebook, and the one that students were given."""

    def __init__(self, name: str, source: NotebookNode, release: NotebookNode) -> None:
        self.name = name
        self.release = release
        self.cells = [_cell(cell) for cell in source.cells]
        self._manifest: dict[str, Any] = source.metadata.get(MANIFEST, {})

    @property
    def title(self) -> str:
        """Title for a reader: the first heading, else the name."""
        for cell in self.cells:
            if cell.kind == "text" and (found := re.search(r"(?m)^# (.+)$", cell.source)):
                return found[1].strip()
        return self.name

    @property
    def tests(self) -> list[Cell]:
        """Cells that are graded by running them."""
        return [cell for cell in self.cells if cell.kind == "test"]

    @property
    def points(self) -> float:
        """Points of the whole assignment."""
        return sum(cell.points for cell in self.cells)

    @cached_property
    def exercises(self) -> list[Exercise]:
        """Exercises, as the notebook lists them; else each solution begins one."""
        by_id = {cell.grade_id: cell for cell in self.cells if cell.grade_id}
        listed = [
            Exercise(entry["label"], entry["title"], tuple(by_id[name] for name in entry["cells"] if name in by_id))
            for entry in self._manifest.get("exercises", [])
        ]
        known = {cell.grade_id for exercise in listed for cell in exercise.cells}
        rest = [
            cell for cell in self.cells if cell.grade_id not in known and cell.kind in ("solution", "answer", "test")
        ]
        return listed + _by_solution(rest)

    @cached_property
    def student_names(self) -> set[str]:
        """Names that students define and tests may use."""
        bound = {name for cell in self.cells if cell.kind == "solution" for name in _bound(cell)}
        return bound & {
            name for cell in self.cells if cell.kind in ("code", "test") for name in used_names(cell.source)
        }

    @cached_property
    def modules(self) -> list[str]:
        """Modules that the instructor's cells import."""
        return list(dict.fromkeys(module for cell in self._code for module in imported_modules(cell.source)))

    def names_before(self, test: Cell) -> list[str]:
        """Names of the student that are there when a test runs."""
        before = self.cells[: self.cells.index(test)]
        bound = {name for cell in before if cell.kind == "solution" for name in _bound(cell)}
        return sorted(bound & self.student_names)

    @cached_property
    def run_with_tests(self) -> list[tuple[Cell, str]]:
        """Cells to run in the process of the tests, each with its source.

        A cell that rests on what students define is left out unless a test needs it: it shows what they have done, and
        may take as long as that.
        """
        code = self._code
        needed: set[str] = set()
        chosen: list[tuple[Cell, str]] = []
        depends = _dependent(code, self.student_names)
        for cell in reversed(code):
            if cell.kind == "solution":
                chosen.append((cell, imports_of(cell.source)))
            elif cell.kind == "test" or cell not in depends or bound_names(cell.source) & needed:
                needed |= used_names(cell.source)
                chosen.append((cell, cell.source))
        return chosen[::-1]

    @property
    def _code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind in ("code", "solution", "test")]


def load_assignment(course: Path, name: str) -> Assignment:
    """Assignment of a course folder.

    Raises
    ------
    UserError
        When there is none of this name, or it was changed after its release.
    """
    notebooks = {}
    for folder in ("source", "release"):
        file = course / folder / name / f"{name}.ipynb"
        if not file.is_file():
            raise UserError(
                f"{file} is not there; `nbgrader generate_assignment {name}` makes the release from the source"
            )
        notebooks[folder] = nbformat.read(file, as_version=4)
    graded = {folder: _graded(notebook) for folder, notebook in notebooks.items()}
    if changed := graded["source"] ^ graded["release"]:
        cells = ", ".join(sorted({grade_id for grade_id, _ in changed}))
        raise UserError(f"{name}: source and release differ in {cells}; make the release again before grading")
    return Assignment(name, notebooks["source"], notebooks["release"])


def _graded(notebook: NotebookNode) -> set[tuple[str, float]]:
    return {
        (cell.metadata.nbgrader["grade_id"], float(cell.metadata.nbgrader.get("points") or 0))
        for cell in notebook.cells
        if "nbgrader" in cell.metadata and (utils.is_grade(cell) or utils.is_solution(cell))
    }


def _cell(cell: NotebookNode) -> Cell:
    grading = cell.metadata.get("nbgrader", {})
    graded = utils.is_grade(cell) or utils.is_task(cell)
    visible = cell.source
    if utils.is_grade(cell) and cell.cell_type == "code":
        stripped, _ = ClearHiddenTests().preprocess_cell(NotebookNode(cell), {}, 0)
        visible = stripped.source
    return Cell(
        kind=_kind(cell),
        grade_id=grading.get("grade_id"),
        source=cell.source,
        visible=visible,
        points=float(grading.get("points") or 0) if graded else 0.0,
        graded=graded,
    )


def _kind(cell: NotebookNode) -> str:
    if utils.is_solution(cell) or utils.is_task(cell):
        return "solution" if cell.cell_type == "code" else "answer"
    if cell.cell_type != "code":
        return "text"
    return "test" if utils.is_grade(cell) else "code"


def _bound(cell: Cell) -> set[str]:
    return bound_names(cell.source)


def _dependent(code: list[Cell], student_names: set[str]) -> list[Cell]:
    """Cells that use what students define, directly or through each other."""
    names = set(student_names)
    found = []
    for cell in code:
        if cell.kind == "code" and used_names(cell.source) & names:
            found.append(cell)
            names |= bound_names(cell.source)
    return found


def _by_solution(cells: list[Cell]) -> list[Exercise]:
    """Exercises of one solution and the tests after it."""
    groups: list[list[Cell]] = []
    for cell in cells:
        if cell.kind == "test" and groups:
            groups[-1].append(cell)
        else:
            groups.append([cell])
    graded = [group for group in groups if any(cell.graded for cell in group)]
    return [Exercise(str(group[0].grade_id), str(group[0].grade_id), tuple(group)) for group in graded]
