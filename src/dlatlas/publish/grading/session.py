"""Runs one submission: the student's cells, then the visible tests, then all tests.

The order matters. Whatever a student will be shown has been produced before the first hidden test runs, so a hidden
test cannot be carried into it by the student's code.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dlatlas.publish.grading.assignment import Assignment, Cell
from dlatlas.publish.grading.outputs import read_answer
from dlatlas.publish.grading.process import Stopped, Worker
from dlatlas.publish.grading.sandbox import STUDENT, TESTER, Sandbox
from dlatlas.publish.grading.settings import Limits
from dlatlas.publish.grading.submission import Piece, Submission
from dlatlas.publish.grading.wire import from_bytes, to_bytes

_SECONDS_TO_START = 120.0
# A worker that is told to stop a cell has this long before it is ended.
_SECONDS_OF_GRACE = 3.0
_RESTARTS = 3
# Values that wait here until they are tested.
_LARGEST_VALUES = 64 * 2**20

Step = tuple[str, str | int]


@dataclass
class Verdict:
    """How a test went.

    ``visible`` holds the error of the part that students have seen; ``hidden`` says whether the rest passed, None when
    there is none or it did not come to it; ``trace`` is for the instructor alone.
    """

    score: float = 0.0
    visible: dict[str, Any] | None = None
    hidden: bool | None = None
    reason: str | None = None
    trace: str = ""


@dataclass(frozen=True)
class Stop:
    """What had to be left out, and why."""

    step: Step
    reason: str

    def sentence(self, names: list[str]) -> str:
        """The stop in words, given the names of the submission's cells."""
        kind, where = self.step
        name = names[where] if kind == "cell" and isinstance(where, int) else str(where)
        return f"{name}: {self.reason}"


@dataclass
class Run:
    """What came of a submission.

    ``cells`` holds, for each piece of code, its outputs and its error; ``verdicts`` those of the tests, by name.
    """

    cells: dict[int, dict[str, Any]] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    stops: list[Stop] = field(default_factory=list)


class Session:
    """Grades submissions of one assignment, one after the other.

    Parameters
    ----------
    assignment
        The assignment.
    sandbox
        Where the workers run.
    limits
        What a submission may use.
    """

    def __init__(self, assignment: Assignment, sandbox: Sandbox, limits: Limits) -> None:
        self._assignment = assignment
        self._sandbox = sandbox
        self._limits = limits
        self._tester: Worker | None = None

    def grade(self, submission: Submission) -> Run:
        """Run a submission.

        What ends the student's process is left out, and the rest is run again in a new one: a cell that crashes costs
        what rests on it, and nothing else.
        """
        left_out: dict[Step, str] = {}
        until = time.monotonic() + self._limits.seconds
        for _ in range(_RESTARTS + 1):
            attempt = _Attempt(self._assignment, submission, self._limits, left_out, until)
            try:
                attempt.run(self._open_student, self._open_tester)
                break
            except Stopped as stop:
                if attempt.step[0] in ("visible", "hidden"):
                    self._close_tester()
                left_out[attempt.step] = str(stop)
                if time.monotonic() > until:
                    break
        return attempt.result()

    def close(self) -> None:
        """End the process of the tests."""
        self._close_tester()

    def _open_student(self) -> Worker:
        return self._open(STUDENT)

    def _open_tester(self) -> Worker:
        if self._tester is None:
            self._tester = self._open(TESTER)
        return self._tester

    def _close_tester(self) -> None:
        if self._tester is not None:
            self._tester.close()
            self._tester = None

    def _open(self, module: str) -> Worker:
        return open_worker(self._sandbox, module, self._limits)


def open_worker(sandbox: Sandbox, module: str, limits: Limits) -> Worker:
    """Start a worker and wait until it is ready.

    Raises
    ------
    RuntimeError
        When it does not get ready, with what it has said.
    """
    worker = Worker(sandbox(module), limits.memory_mb)
    try:
        worker.receive(time.monotonic() + _SECONDS_TO_START)
    except Stopped as stop:
        complaint = worker.complaint()
        worker.close()
        raise RuntimeError(f"the sandbox does not start: {complaint or stop}") from stop
    except BaseException:
        worker.close()
        raise
    return worker


class _Attempt:
    """One pass through a submission, leaving out what ended the passes before."""

    def __init__(
        self, assignment: Assignment, submission: Submission, limits: Limits, left_out: dict[Step, str], until: float
    ) -> None:
        self.step: Step = ("start", 0)
        self._assignment = assignment
        self._pieces = submission.pieces
        self._limits = limits
        self._left_out = left_out
        self._until = until
        self._run = Run()
        self._names: dict[str, tuple[list[str], bytes]] = {}
        self._failed_visible: dict[str, dict[str, Any]] = {}

    def run(self, open_student: Callable[[], Worker], open_tester: Callable[[], Worker]) -> None:
        """Run the cells, the visible tests, and all tests."""
        self._tester = open_tester()
        self._student = open_student()
        try:
            self._run_cells()
            self.step = ("visible", "imports")
            self._ask_tester({"begin": self._assignment.modules}, _SECONDS_TO_START)
            self._run_tests("visible", self._judge_visible)
            self._run_tests("hidden", self._judge)
            self._tester.send(to_bytes({"end": True}), self._deadline())
        finally:
            self._student.close()

    def result(self) -> Run:
        """What came of it; tests that did not run have no points."""
        for test in self._assignment.tests:
            name = str(test.grade_id)
            visible = self._failed_visible.get(name)
            self._run.verdicts.setdefault(name, Verdict(visible=visible, reason=self._reason(name)))
        self._run.stops = [Stop(step, reason) for step, reason in self._left_out.items()]
        return self._run

    def _reason(self, name: str) -> str:
        for kind in ("names", "visible", "hidden"):
            if (kind, name) in self._left_out:
                return self._left_out[kind, name]
        return "it did not run, since the time of the submission was over or its process had ended too often"

    def _run_cells(self) -> None:
        tests = {str(test.grade_id): test for test in self._assignment.tests}
        for position, piece in enumerate(self._pieces):
            if piece.grade_id in tests:
                # The names are taken before the test: it is the instructor's, but it runs within the student's process.
                self._take_names(tests[piece.grade_id])
            if piece.cell_type == "code":
                self._run_cell(position, piece)

    def _run_cell(self, position: int, piece: Piece) -> None:
        self.step = ("cell", position)
        if reason := self._left_out.get(self.step):
            error = {"name": "Stopped", "message": reason, "within": None}
            self._run.cells[position] = {"outputs": [], "error": error}
            return
        answer = self._ask_student({"ask": "execute", "source": piece.source})
        self._run.cells[position] = read_answer(answer)

    def _take_names(self, test: Cell) -> None:
        names = self._assignment.names_before(test)
        self.step = ("names", str(test.grade_id))
        if self.step not in self._left_out:
            answer = self._ask_student({"ask": "names", "names": names})
            if len(answer) > _LARGEST_VALUES:
                raise Stopped("the values that it tests are too large")
            self._names[str(test.grade_id)] = (names, answer)

    def _run_tests(self, kind: str, judge: Callable[[Cell, dict[str, Any]], None]) -> None:
        self._ask_tester({"start": True})
        for position, (cell, source) in enumerate(self._assignment.run_with_tests):
            name = cell.grade_id or f"cell {position}"
            self.step = (kind, name)
            if any((before, name) in self._left_out for before in ("names", "visible", kind)):
                continue
            if cell.kind == "test":
                self._bind(name)
                source = cell.visible if kind == "visible" else cell.source
            done = self._ask_tester({"run": source, "called": f"<{name}>", "seconds": self._limits.seconds_per_cell})
            if cell.kind == "test":
                judge(cell, done)

    def _bind(self, name: str) -> None:
        names, answer = self._names[name]
        self._tester.send(to_bytes({"bind": names}), self._deadline())
        self._tester.send(answer, self._deadline())
        self._tester.receive(self._deadline())

    def _judge_visible(self, cell: Cell, done: dict[str, Any]) -> None:
        if done["error"]:
            self._failed_visible[str(cell.grade_id)] = done["error"]

    def _judge(self, cell: Cell, done: dict[str, Any]) -> None:
        visible = self._failed_visible.get(str(cell.grade_id))
        passed = visible is None and (done["error"] is None or not cell.is_hidden)
        value = cell.points if done["value"] is None else min(max(done["value"], 0.0), cell.points)
        verdict = Verdict(score=value if passed else 0.0, visible=visible, trace=done["trace"])
        if cell.is_hidden and visible is None:
            verdict.hidden = passed
        self._run.verdicts[str(cell.grade_id)] = verdict

    def _ask_student(self, head: dict[str, Any]) -> bytes:
        self._student.send(to_bytes(head | {"seconds": self._limits.seconds_per_cell}), self._deadline())
        return self._student.receive(self._deadline())

    def _ask_tester(self, head: dict[str, Any], more_seconds: float = 0.0) -> Any:
        """Ask the process of the tests, and pass its calls on to the student's process until it is done."""
        deadline = self._deadline() + more_seconds
        self._tester.send(to_bytes(head), deadline)
        while True:
            data = self._tester.receive(deadline)
            reply = from_bytes(data).head
            if "done" in reply:
                return reply["done"]
            self._student.send(data, deadline)
            self._tester.send(self._student.receive(deadline), deadline)

    def _deadline(self) -> float:
        return min(time.monotonic() + self._limits.seconds_per_cell + _SECONDS_OF_GRACE, self._until)
