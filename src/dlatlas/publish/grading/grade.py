"""Grades the submissions of an assignment, some side by side, and writes all that comes of it."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from dlatlas.publish.errors import UserError
from dlatlas.publish.files import remove_unfinished
from dlatlas.publish.grading import submission as submissions
from dlatlas.publish.grading.assignment import load_assignment
from dlatlas.publish.grading.feedback import page_file, write_page
from dlatlas.publish.grading.gradebook import Course
from dlatlas.publish.grading.results import Result, Results, fingerprint, result_of
from dlatlas.publish.grading.sandbox import STUDENT, choose_sandbox
from dlatlas.publish.grading.session import Run, Session, open_worker
from dlatlas.publish.grading.settings import load_settings
from dlatlas.publish.grading.submission import Submission, Unreadable
from dlatlas.publish.grading.table import write_table

_TIMESTAMP_MB = 0.001


class HandedIn(NamedTuple):
    """A submission that waits to be graded."""

    student: str
    fingerprint: str
    content: Submission | None
    problem: str | None
    moment: str | None


class Graded(NamedTuple):
    """A submission that was run; ``failure`` is what went wrong with the grader itself."""

    handed_in: HandedIn
    run: Run | None
    seconds: float
    failure: str | None = None


class Grading:
    """Grading of one assignment of a course folder.

    Parameters
    ----------
    folder
        The course folder.
    name
        The assignment.
    unsafe
        Run submissions without a sandbox.
    """

    def __init__(self, folder: Path, name: str, *, unsafe: bool) -> None:
        self._course = Course(folder)
        self._settings = load_settings(self._course.folder)
        self._assignment = load_assignment(self._course.folder, name)
        self._course.require(self._assignment)
        self._results = Results(self._course.folder, name)
        self._sandbox = choose_sandbox(
            self._settings, self._course.folder, _files(self._course.folder / "release" / name), unsafe=unsafe
        )
        self.refused: list[Result] = []
        self.failures: dict[str, str] = {}
        self._students: list[str] = []

    @property
    def table(self) -> Path:
        """File of the grades."""
        return self._results.folder / "grades.csv"

    def waiting(self) -> list[HandedIn]:
        """Submissions that are new, or were graded under other conditions."""
        remove_unfinished(self._course.folder / "grading")
        found = [self._handed_in(student, folder) for student, folder in self._folders()]
        entered = self._course.grades(self._assignment.name)
        return [item for item in found if item.student not in entered or not self._is_done(item)]

    def _folders(self) -> Iterator[tuple[str, Path]]:
        for student, folder in submissions.student_folders(self._course.folder / "submitted"):
            try:
                submissions.require_name(student)
            except Unreadable as problem:
                self.refused.append(Result(ascii(student), "", problem=str(problem)))
                continue
            self._students.append(student)
            yield student, folder

    def _is_done(self, item: HandedIn) -> bool:
        known = self._results.read(item.student)
        return known is not None and known.fingerprint == item.fingerprint

    def _handed_in(self, student: str, folder: Path) -> HandedIn:
        name, course = self._assignment.name, self._course.folder
        moment, data = None, b""
        with suppress(Unreadable, UnicodeDecodeError):
            moment = submissions.read_bytes(course, folder / name / "timestamp.txt", _TIMESTAMP_MB).decode()
        try:
            data = submissions.read_bytes(course, folder / name / f"{name}.ipynb", self._settings.limits.notebook_mb)
            content = submissions.merge(submissions.parse(data), self._assignment.release)
            problem = None
        except Unreadable as error:
            content, problem = None, str(error)
        mark = fingerprint(data or (problem or "").encode(), self._assignment, self._settings)
        return HandedIn(student, mark, content, problem, moment)

    def run(self, waiting: list[HandedIn], jobs: int) -> Iterator[Result]:
        """Grade submissions; each is kept as soon as it is done, and then given."""
        if any(item.content for item in waiting):
            self._try_sandbox()
        todo: SimpleQueue[HandedIn] = SimpleQueue()
        done: SimpleQueue[Graded] = SimpleQueue()
        for item in waiting:
            todo.put(item)
        lanes = [Thread(target=self._grade_in_turn, args=(todo, done), daemon=True) for _ in range(jobs)]
        for lane in lanes:
            lane.start()
        for _ in waiting:
            yield self._keep(done.get())
        for lane in lanes:
            lane.join()

    def _try_sandbox(self) -> None:
        try:
            open_worker(self._sandbox, STUDENT, self._settings.limits).close()
        except RuntimeError as error:
            raise UserError(str(error)) from error

    def _grade_in_turn(self, todo: "SimpleQueue[HandedIn]", done: "SimpleQueue[Graded]") -> None:
        session = Session(self._assignment, self._sandbox, self._settings.limits)
        with suppress(Empty):
            while True:
                done.put(_graded(session, todo.get_nowait()))
        session.close()

    def _keep(self, graded: Graded) -> Result:
        """Write what came of a submission; the result file comes last, and says that all the rest is there."""
        item = graded.handed_in
        try:
            return self._write(graded) if graded.failure is None else self._failed(item, graded.failure)
        except Exception as error:  # such as a gradebook that another program holds
            return self._failed(item, f"it could not be written: {type(error).__name__}: {error}")

    def _failed(self, item: HandedIn, failure: str) -> Result:
        self.failures[item.student] = failure
        return Result(item.student, item.fingerprint, problem=failure)

    def _write(self, graded: Graded) -> Result:
        item = graded.handed_in
        if item.content and graded.run:
            result = result_of(item.student, item.fingerprint, self._assignment, item.content, graded.run)
            self._course.save(self._assignment, item.student, item.content, graded.run, item.moment)
        else:
            result = Result(item.student, item.fingerprint, problem=item.problem)
            self._course.save_nothing(self._assignment, item.student, item.moment)
        result.seconds = round(graded.seconds, 2)
        self._results.write(result)
        return result

    def write_pages(self) -> None:
        """Write the table and the pages for students, with what was graded by hand meanwhile."""
        grades = self._course.grades(self._assignment.name)
        found = [self._results.read(student) for student in self._students if student in grades]
        results = [result for result in found if result]
        write_table(self.table, self._assignment, results, self.refused, grades)
        for result in results:
            penalty, cells = grades[result.student]
            file = page_file(self._course.folder, self._assignment.name, result.student)
            write_page(file, self._assignment, result, penalty, cells)


def _graded(session: Session, item: HandedIn) -> Graded:
    start = time.monotonic()
    if item.content is None:
        return Graded(item, None, 0.0)
    try:
        run = session.grade(item.content)
    except Exception as error:  # the submission stays ungraded, and the others go on
        return Graded(item, None, 0.0, f"the grader failed: {type(error).__name__}: {error}")
    return Graded(item, run, time.monotonic() - start)


def _files(release: Path) -> list[Path]:
    """Files besides the notebook that students were given."""
    return [file for file in sorted(release.iterdir()) if file.suffix != ".ipynb"] if release.is_dir() else []
