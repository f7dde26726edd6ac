"""The exercises of an assignment, each with what it needs of its chapter."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from dlatlas.publish.assignments.course import Assignment, Course
from dlatlas.publish.assignments.exercises import Exercise, graded_exercises
from dlatlas.publish.assignments.references import References
from dlatlas.publish.assignments.slicing import Statement, needed
from dlatlas.publish.chapters import written_chapters
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import load

_LABEL = re.compile(r"(?m)^:label:[ \t]*(\S+)")


@dataclass(frozen=True)
class Selected:
    """An exercise in an assignment."""

    exercise: Exercise
    references: References
    needed: tuple[Statement, ...]
    points: float

    @property
    def factor(self) -> float:
        """Points in the course for one point in the chapter."""
        return self.points / self.exercise.points

    @property
    def set_up(self) -> str:
        """What the cells need of the chapter besides imports."""
        return joined([statement for statement in self.needed if not statement.is_import])


def joined(statements: list[Statement]) -> str:
    """Statements as one cell, definitions set off by blank lines."""
    text = ""
    for statement in statements:
        block = isinstance(ast.parse(statement.source).body[0], ast.FunctionDef | ast.ClassDef)
        text += ("\n\n" if block and text else "") + statement.source + ("\n\n\n" if block else "\n")
    return text.replace("\n\n\n\n", "\n\n\n").strip("\n")


class Exercises:
    """All graded exercises of the written chapters; a chapter is read when one of its exercises is asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._chapters: dict[str, list[Selected]] = {}

    @cached_property
    def chapters(self) -> list[str]:
        """Chapters that are written."""
        return written_chapters(self._layout)

    @cached_property
    def _places(self) -> dict[str, str]:
        """Chapter of every exercise; found in the text, so that one chapter in the making does not stop the others."""
        texts = {chapter: self._layout.notebook(chapter).read_text(encoding="utf-8") for chapter in self.chapters}
        return {label: chapter for chapter, text in texts.items() for label in _LABEL.findall(text)}

    def of_chapter(self, chapter: str) -> list[Selected]:
        """Graded exercises of one chapter."""
        if chapter not in self._chapters:
            self._chapters[chapter] = _select(chapter, self._layout)
        return self._chapters[chapter]

    def chosen(self, name: str, course: Course) -> list[Selected]:
        """Exercises of an assignment, with the points that the course gives them.

        Raises
        ------
        UserError
            When the course names a chapter or an exercise that is not there, or two cells share a name.
        """
        assignment = course.assignment(name)
        exercises = list(self._named(name, assignment))
        for label in assignment.points:
            if label not in {chosen.exercise.label for chosen in exercises}:
                raise UserError(f"assignments.{name}.points: the exercise {label!r} is not in this assignment")
        _require_unique(name, exercises)
        return [_with_points(chosen, assignment) for chosen in exercises]

    def _named(self, name: str, assignment: Assignment) -> Iterator[Selected]:
        for chapter in assignment.chapters:
            if chapter not in self.chapters:
                raise UserError(f"assignments.{name}.chapters: no chapter {chapter!r}{_close(chapter, self.chapters)}")
            if not self.of_chapter(chapter):
                raise UserError(f"assignments.{name}.chapters: {chapter} has no graded exercise")
            yield from self.of_chapter(chapter)
        for label in assignment.exercises:
            yield self._of_label(name, label)

    def _of_label(self, name: str, label: str) -> Selected:
        place = f"assignments.{name}.exercises"
        if label not in self._places:
            raise UserError(f"{place}: no exercise {label!r}{_close(label, self._places)}")
        graded = {chosen.exercise.label: chosen for chosen in self.of_chapter(self._places[label])}
        if label not in graded:
            raise UserError(f"{place}: the exercise {label!r} is not graded{_close(label, graded)}")
        return graded[label]


def _close(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(name, known, n=3)
    return f"; closest: {', '.join(close)}" if close else f"; there are {', '.join(known)}"


def _require_unique(name: str, exercises: list[Selected]) -> None:
    ids = Counter(part.grade_id for chosen in exercises for part in chosen.exercise.parts if part.grade_id)
    if twice := [grade_id for grade_id, count in ids.items() if count > 1]:
        raise UserError(f"assignments.{name}: graded cells that come twice: {', '.join(twice)}")


def _with_points(chosen: Selected, assignment: Assignment) -> Selected:
    points = assignment.points.get(chosen.exercise.label, chosen.exercise.points)
    return Selected(chosen.exercise, chosen.references, chosen.needed, points)


def _select(chapter: str, layout: Layout) -> list[Selected]:
    cells = load(chapter, layout).cells
    references = References(chapter, cells)
    code = {position: cell.source for position, cell in enumerate(cells) if cell.cell_type == "code"}
    exercises = graded_exercises(chapter, layout)
    return [
        Selected(exercise, references, tuple(_needed(exercise, exercises, code)), exercise.points)
        for exercise in exercises
    ]


def _needed(exercise: Exercise, exercises: list[Exercise], code: dict[int, str]) -> list[Statement]:
    own = {part.position for part in exercise.parts if part.is_code}
    closed = {
        part.position: f"the solution {part.grade_id!r} of another exercise, which students have to write themselves"
        for other in exercises
        if other is not exercise
        for part in other.parts
        if part.is_code and part.is_solution
    }
    try:
        return needed(code, own, closed)
    except UserError as error:
        raise UserError(f"{exercise.chapter}: {exercise.label}: {error}") from error
