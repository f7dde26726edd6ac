"""Graded exercises of a chapter: statement, and the cells that an assignment takes over.

An assignment takes the statement of an exercise, its cells with nbgrader metadata, and its cells tagged ``released``.
Whatever else follows the exercise (a folded solution, a remark) stays in the chapter.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from nbformat import NotebookNode

from dlatlas.publish.directives import EXERCISE, TEXT, Segment, segments
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import load, tags

RELEASED = "released"


@dataclass(frozen=True)
class Part:
    """A cell that an assignment takes over; its position in the chapter says what was defined before it."""

    position: int
    cell: NotebookNode

    @property
    def grading(self) -> dict:
        """Metadata of nbgrader; empty for a cell that is only shown."""
        return self.cell.metadata.get("nbgrader", {})

    @property
    def grade_id(self) -> str:
        """Name of the cell in the gradebook; empty for a cell that is only shown."""
        return self.grading.get("grade_id", "")

    @property
    def is_code(self) -> bool:
        """Whether the cell is run."""
        return self.cell.cell_type == "code"

    @property
    def is_solution(self) -> bool:
        """Whether students write this cell."""
        return bool(self.grading.get("solution"))

    @property
    def is_test(self) -> bool:
        """Whether running the cell decides on points."""
        return bool(self.grading.get("grade")) and not self.is_solution

    @property
    def points(self) -> float:
        """Points that the cell is worth."""
        return self.grading.get("points", 0) if self.grading.get("grade") else 0


@dataclass(frozen=True)
class Exercise:
    """An exercise with points."""

    chapter: str
    label: str
    title: str
    statement: str
    parts: list[Part] = field(default_factory=list)

    @property
    def points(self) -> float:
        """Points of all cells."""
        return sum(part.points for part in self.parts)

    @property
    def tests(self) -> list[Part]:
        """Cells that are graded by running them."""
        return [part for part in self.parts if part.is_test]


def graded_exercises(chapter: str, layout: Layout) -> list[Exercise]:
    """Exercises of a chapter that are worth points, in reading order.

    Raises
    ------
    UserError
        When an exercise cannot be cut out of the chapter.
    """
    found = list(_exercises(load(chapter, layout).cells, chapter))
    return [exercise for exercise in found if exercise.points]


def _exercises(cells: list[NotebookNode], chapter: str) -> Iterator[Exercise]:
    current = None
    for position, cell in enumerate(cells):
        taken = "nbgrader" in cell.metadata or RELEASED in tags(cell)
        if cell.cell_type == "markdown":
            pieces = list(segments(cell.source))
            begun = [_begin(piece, chapter) for piece in pieces if piece.kind == EXERCISE]
            if begun and taken:
                raise UserError(
                    f"{chapter}: a graded or released cell holds the exercise {begun[0].label}; cut it (+++)"
                )
            yield from begun
            current = begun[-1] if begun else current
            cell = NotebookNode({**cell, "source": _answer(pieces)})
        if taken and current is None:
            raise UserError(f"{chapter}: a graded or released cell comes before the first exercise: {cell.source:.50}")
        if taken and cell.cell_type in ("code", "markdown"):
            current.parts.append(Part(position, cell))


def _begin(piece: Segment, chapter: str) -> Exercise:
    if "label" not in piece.options:
        raise UserError(f"{chapter}: the exercise {piece.argument!r} has no label (add a line `:label: ex-...`)")
    return Exercise(chapter, piece.options["label"], piece.argument, piece.text)


def _answer(pieces: list[Segment]) -> str:
    """Text of a cell without the marks that fold a solution on the page."""
    return "\n\n".join(piece.text for piece in pieces if piece.kind in (TEXT, "solution") and piece.text)
