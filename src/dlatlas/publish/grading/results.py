"""Result files: one for each submission, written when all else is done, so that grading can go on after a kill."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dlatlas.publish.files import read_json, write_json
from dlatlas.publish.grading.assignment import Assignment
from dlatlas.publish.grading.session import Run
from dlatlas.publish.grading.settings import Settings
from dlatlas.publish.grading.submission import Submission

FOLDER = "grading"


@dataclass
class Result:
    """What came of one submission.

    ``problem`` says why it could not be graded at all. ``errors`` are those of the student's own cells, by the name of
    the cell or its first line.
    """

    student: str
    fingerprint: str
    seconds: float = 0.0
    problem: str | None = None
    remarks: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The result in a few words."""
        if self.problem:
            return f"not graded: {self.problem}"
        return "; ".join(["graded", *self.stops])


def result_of(student: str, fingerprint: str, assignment: Assignment, submission: Submission, run: Run) -> Result:
    """Result of a submission that was run."""
    tests = {test.grade_id for test in assignment.tests}
    names = [piece.grade_id or first_line(piece.source) for piece in submission.pieces]
    own = {position: cell for position, cell in run.cells.items() if submission.pieces[position].grade_id not in tests}
    return Result(
        student=student,
        fingerprint=fingerprint,
        remarks=submission.remarks,
        stops=[stop.sentence(names) for stop in run.stops],
        errors={names[position]: cell["error"] for position, cell in own.items() if cell["error"]},
        verdicts={name: asdict(verdict) for name, verdict in run.verdicts.items()},
    )


def first_line(source: str) -> str:
    """A cell without a name, as a student can find it."""
    lines = [line.strip() for line in source.split("\n") if line.strip()]
    # It is shown in terminals, where some characters are commands.
    return f"your cell “{''.join(c if c.isprintable() else '?' for c in lines[0][:60])}”" if lines else "an empty cell"


def fingerprint(data: bytes, assignment: Assignment, settings: Settings) -> str:
    """Changes when the submission, the assignment or the limits do."""
    asked = [[cell.grade_id, cell.source, cell.points] for cell in assignment.cells]
    about = json.dumps([asked, settings.model_dump(mode="json")]).encode()
    return hashlib.sha256(about + data).hexdigest()


class Results:
    """Result files of an assignment."""

    def __init__(self, course: Path, assignment: str) -> None:
        self.folder = course / FOLDER / assignment

    def read(self, student: str) -> Result | None:
        """Result of a student, if there is one."""
        file = self._file(student)
        return Result(**read_json(file)) if file.is_file() else None

    def write(self, result: Result) -> None:
        """Keep a result: from now on the submission is graded."""
        write_json(asdict(result), self._file(result.student))

    def _file(self, student: str) -> Path:
        return self.folder / "students" / f"{student}.json"
