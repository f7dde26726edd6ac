"""Exercises of the chapters, found in their text."""

from dataclasses import dataclass

import jupytext

from dlatlas.publish.directives import EXERCISE, SOLUTION, Segment, segments
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout


@dataclass(frozen=True)
class Exercise:
    """One exercise of a chapter."""

    label: str
    title: str
    graded: bool
    solved: bool


def exercises_of(chapter: str, layout: Layout) -> list[Exercise]:
    """Exercises of a chapter in reading order.

    An exercise is graded when a graded cell (nbgrader) follows it before the next exercise begins.

    Raises
    ------
    UserError
        When an exercise has no label: nothing could link to it.
    """
    found: dict[str, str] = {}
    graded: set[str] = set()
    solved: set[str] = set()
    current = None
    for cell in jupytext.read(layout.notebook(chapter)).cells:
        for segment in segments(cell.source) if cell.cell_type == "markdown" else ():
            if segment.kind == EXERCISE:
                current = _label(segment, chapter)
                found[current] = segment.argument
            elif segment.kind == SOLUTION:
                solved.add(segment.argument)
        if current and cell.metadata.get("nbgrader", {}).get("grade"):
            graded.add(current)
    return [Exercise(label, title, label in graded, label in solved) for label, title in found.items()]


def _label(exercise: Segment, chapter: str) -> str:
    if "label" not in exercise.options:
        raise UserError(f"{chapter}: the exercise {exercise.argument!r} has no label (add a line `:label: ex-...`)")
    return exercise.options["label"]
