"""nbgrader's gradebook and autograded notebooks, so that an instructor can go on with its formgrader."""

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
from nbgrader.api import Gradebook, MissingEntry, SubmittedAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties, SaveAutoGrades
from nbgrader.utils import parse_utc
from sqlalchemy.exc import SAWarning
from traitlets.config import Config, PyFileConfigLoader

from dlatlas.publish.errors import UserError
from dlatlas.publish.files import whole
from dlatlas.publish.grading.assignment import Assignment, Cell
from dlatlas.publish.grading.session import Run, Verdict
from dlatlas.publish.grading.submission import Piece, Submission
from dlatlas.publish.grading.wording import hidden_result, said

_CONFIGURATION = "nbgrader_config.py"
_SQLITE = "sqlite:///"


class Grade(NamedTuple):
    """What the gradebook says of one cell."""

    points: float
    awaiting: bool
    comment: str | None


class Course:
    """A course folder of nbgrader.

    Raises
    ------
    UserError
        When the folder holds no gradebook.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.config = self._configuration()
        directory = CourseDirectory(config=self.config)
        self._url = self._absolute(directory.db_url)
        self._course_id = directory.course_id
        if self._url.startswith(_SQLITE) and not Path(self._url.removeprefix(_SQLITE)).is_file():
            raise UserError(f"{folder} holds no gradebook; it is made with the release of an assignment")

    def _configuration(self) -> Config:
        config = Config()
        if (self.folder / _CONFIGURATION).is_file():
            config.merge(PyFileConfigLoader(_CONFIGURATION, path=str(self.folder)).load_config())
        config.CourseDirectory.root = str(self.folder)
        return config

    def _absolute(self, url: str) -> str:
        file = url.removeprefix(_SQLITE)
        return url if file == url else f"{_SQLITE}{self.folder / file}"

    def autograded(self, assignment: str, student: str) -> Path:
        """Notebook that the formgrader shows."""
        return self.folder / "autograded" / student / assignment / f"{assignment}.ipynb"

    def open(self) -> Gradebook:
        """Open the gradebook."""
        return Gradebook(self._url, self._course_id)

    def require(self, assignment: Assignment) -> None:
        """See to it that the gradebook knows the assignment as it is.

        Raises
        ------
        UserError
            When it does not.
        """
        graded = {str(cell.grade_id): cell.points for cell in assignment.cells if cell.graded}
        with self.open() as gradebook:
            try:
                notebook = gradebook.find_notebook(assignment.name, assignment.name)
            except MissingEntry as error:
                raise UserError(f"the gradebook does not know {assignment.name}; make its release first") from error
            known = {cell.name: cell.max_score for cell in [*notebook.grade_cells, *notebook.task_cells]}
        if known != graded:
            raise UserError(f"the gradebook knows other points for {assignment.name}; make its release again")

    def save(
        self, assignment: Assignment, student: str, submission: Submission, run: Run, handed_in: str | None
    ) -> None:
        """Write scores to the gradebook, and the notebook for the formgrader."""
        notebook = autograded_notebook(assignment, submission, run)
        self._enter(assignment.name, student, handed_in)
        names = {"student": student, "assignment": assignment.name, "notebook": assignment.name, "db_url": self._url}
        for preprocessor in (SaveAutoGrades, AssignLatePenalties):
            preprocessor(config=self.config).preprocess(notebook, {"nbgrader": names})
        with whole(self.autograded(assignment.name, student)) as half:
            nbformat.write(notebook, half)
        if handed_in:
            with whole(self.autograded(assignment.name, student).parent / "timestamp.txt") as half:
                half.write_text(handed_in, encoding="utf-8")

    def save_nothing(self, assignment: Assignment, student: str, handed_in: str | None) -> None:
        """Write that a student has no points by tests, since there is nothing that can be graded."""
        self._enter(assignment.name, student, handed_in)
        self.autograded(assignment.name, student).unlink(missing_ok=True)
        with self.open() as gradebook:
            for grade in gradebook.find_submission_notebook(assignment.name, assignment.name, student).grades:
                grade.auto_score, grade.needs_manual_grade = 0, False
            gradebook.db.commit()

    def _enter(self, assignment: str, student: str, handed_in: str | None) -> None:
        moment = _moment(handed_in)
        with self.open() as gradebook, warnings.catch_warnings():
            # nbgrader adds a submission in steps, which SQLAlchemy remarks on each time.
            warnings.simplefilter("ignore", SAWarning)
            gradebook.update_or_create_student(student)
            gradebook.update_or_create_submission(assignment, student, **({"timestamp": moment} if moment else {}))

    def grades(self, assignment: str) -> dict[str, tuple[float, dict[str, Grade]]]:
        """For each student the late penalty and the grades of the cells, by name."""
        with self.open() as gradebook:
            return {
                submission.student.id: (_penalty(submission), _grades(submission))
                for submission in gradebook.assignment_submissions(assignment)
            }


def _penalty(submission: SubmittedAssignment) -> float:
    return sum(notebook.late_submission_penalty or 0.0 for notebook in submission.notebooks)


def _grades(submission: SubmittedAssignment) -> dict[str, Grade]:
    found = {}
    for notebook in submission.notebooks:
        comments = {comment.name: comment.comment for comment in notebook.comments}
        for grade in notebook.grades:
            found[grade.name] = Grade(grade.score or 0.0, bool(grade.needs_manual_grade), comments.get(grade.name))
    return found


def _moment(handed_in: str | None) -> datetime | None:
    try:
        return parse_utc(handed_in.strip()) if handed_in else None
    except (ValueError, OverflowError):
        return None


def autograded_notebook(assignment: Assignment, submission: Submission, run: Run) -> NotebookNode:
    """What was graded, with outputs; tests without their hidden parts, so that it can be shown to anyone."""
    metadata = {
        cell.metadata.nbgrader["grade_id"]: cell.metadata
        for cell in assignment.release.cells
        if "nbgrader" in cell.metadata
    }
    tests = {test.grade_id: test for test in assignment.tests}
    cells = []
    for position, piece in enumerate(submission.pieces):
        cell = _cell(piece, metadata.get(piece.grade_id, {}))
        if piece.grade_id in tests:
            test = tests[piece.grade_id]
            cell.outputs = _outputs_of_test(test, run.verdicts[str(test.grade_id)])
        elif piece.cell_type == "code":
            cell.outputs = _outputs_of_cell(run.cells.get(position, {"outputs": [], "error": None}))
        cells.append(cell)
    return new_notebook(cells=cells, metadata=dict(assignment.release.metadata))


def _cell(piece: Piece, metadata: dict[str, Any]) -> NotebookNode:
    new_cell = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}[piece.cell_type]
    cell = new_cell(piece.source, metadata=dict(metadata))
    if piece.attachments:
        cell.attachments = piece.attachments
    return cell


def _outputs_of_cell(ran: dict[str, Any]) -> list[NotebookNode]:
    outputs = [nbformat.from_dict(output) for output in ran["outputs"]]
    error = ran["error"]
    return [*outputs, _error(error["name"], error["message"])] if error else outputs


def _outputs_of_test(test: Cell, verdict: Verdict) -> list[NotebookNode]:
    """Outputs from which nbgrader reads the score: an error for none, a number for a part."""
    if verdict.score == 0:
        text = verdict.reason or (said(verdict.visible) if verdict.visible else hidden_result(test.hint, passed=False))
        return [_error("TestFailed", text)]
    if verdict.score < test.points:
        return [new_output("execute_result", data={"text/plain": f"{verdict.score:g}"})]
    return []


def _error(name: str, message: str) -> NotebookNode:
    return new_output("error", ename=name, evalue=message, traceback=[f"{name}: {message}"])
