"""The grades of an assignment as a table for a spreadsheet."""

import csv
from pathlib import Path

from dlatlas.publish.files import whole
from dlatlas.publish.grading.assignment import Assignment, Exercise
from dlatlas.publish.grading.gradebook import Grade
from dlatlas.publish.grading.results import Result

Grades = dict[str, tuple[float, dict[str, Grade]]]


def write_table(
    file: Path, assignment: Assignment, results: list[Result], refused: list[Result], grades: Grades
) -> None:
    """Write a line for each student, and for each folder that was refused; what awaits grading by hand is empty."""
    exercises = assignment.exercises
    head = ["student", "assignment", "score", "max", *(exercise.name for exercise in exercises), "awaiting", "outcome"]
    with whole(file) as half, half.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        for result in results:
            penalty, cells = grades[result.student]
            score = max(0.0, sum(cell.points for cell in cells.values()) - penalty)
            awaiting = [name for name, cell in cells.items() if cell.awaiting]
            points = [_points(exercise, cells) for exercise in exercises]
            line = [result.student, assignment.name, f"{score:g}", f"{assignment.points:g}", *points]
            writer.writerow([*line, " ".join(awaiting), result.outcome])
        for result in refused:
            nothing = [""] * (len(head) - 3)
            writer.writerow([result.student, assignment.name, *nothing, result.outcome])


def _points(exercise: Exercise, grades: dict[str, Grade]) -> str:
    found = [grades[str(cell.grade_id)] for cell in exercise.cells if cell.graded and str(cell.grade_id) in grades]
    return "" if any(grade.awaiting for grade in found) else f"{sum(grade.points for grade in found):g}"
