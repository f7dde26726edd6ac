"""Pages for students: what they got, what went wrong in the tests that they know, and nothing of the others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dlatlas.publish.files import whole
from dlatlas.publish.grading.assignment import Assignment, Cell, Exercise
from dlatlas.publish.grading.gradebook import Grade
from dlatlas.publish.grading.results import Result
from dlatlas.publish.grading.wording import hidden_result, said

_templates = Environment(
    loader=PackageLoader("dlatlas.publish.grading", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Line:
    """One graded cell on the page."""

    name: str
    points: float
    out_of: float
    state: str  # passed, failed, partly, awaiting, graded
    texts: list[str]


def page_file(course: Path, assignment: str, student: str) -> Path:
    """Where nbgrader looks for the feedback of a student."""
    return course / "feedback" / student / assignment / f"{assignment}.html"


def write_page(file: Path, assignment: Assignment, result: Result, penalty: float, grades: dict[str, Grade]) -> None:
    """Write the page of a student."""
    lines = [(exercise, _lines(exercise, result, grades)) for exercise in assignment.exercises]
    every = [line for _, found in lines for line in found]
    text = _templates.get_template("feedback.html").render(
        assignment=assignment,
        result=result,
        exercises=lines,
        errors={name: said(error) for name, error in result.errors.items()},
        score=max(0.0, sum(line.points for line in every) - penalty),
        penalty=penalty,
        awaiting=sum(line.out_of for line in every if line.state == "awaiting"),
    )
    with whole(file) as half:
        half.write_text(text, encoding="utf-8")


def _lines(exercise: Exercise, result: Result, grades: dict[str, Grade]) -> list[Line]:
    return [_line(cell, result, grades.get(str(cell.grade_id))) for cell in exercise.cells if cell.graded]


def _line(cell: Cell, result: Result, grade: Grade | None) -> Line:
    name, points = str(cell.grade_id), grade.points if grade else 0.0
    texts = [grade.comment] if grade and grade.comment else []
    verdict = result.verdicts.get(name)
    if cell.kind == "test" and verdict:
        state = "passed" if verdict["score"] == cell.points else "partly" if verdict["score"] else "failed"
        return Line(name, points, cell.points, state, _texts(cell, verdict) + texts)
    return Line(name, points, cell.points, "awaiting" if grade and grade.awaiting else "graded", texts)


def _texts(cell: Cell, verdict: dict[str, Any]) -> list[str]:
    if verdict["reason"]:
        return [verdict["reason"]]
    if verdict["visible"]:
        return [said(verdict["visible"])]
    return [] if verdict["hidden"] is None else [hidden_result(cell.hint, passed=verdict["hidden"])]
