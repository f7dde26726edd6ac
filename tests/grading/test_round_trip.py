"""A class as an instructor meets it: release, submissions of all kinds, a kill in the middle, grades and feedback.

``DLATLAS_SUBMISSIONS=100`` makes it a real class; by default it is a small one.
"""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from dlatlas.publish.assignments.course import read_course
from dlatlas.publish.assignments.mutants import mutants_of
from dlatlas.publish.assignments.release import make_course
from dlatlas.publish.assignments.selection import Exercises
from dlatlas.publish.chapters import layout_of
from tests.grading import hostile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap (bwrap) is not installed"),
]

CHAPTER, NAME = "theory/grokking", "grokking"
COURSE = f"name: A class\nassignments:\n  {NAME}:\n    title: Grokking\n    chapters: [{CHAPTER}]\n"
SUBMISSIONS = int(os.environ.get("DLATLAS_SUBMISSIONS", "10"))
HOSTILE = ("exit", "crash", "forged-message", "fork-bomb", "shared-memory", "stubborn-loop")
COMMAND = [sys.executable, "-m", "dlatlas.publish", "grade"]


def reference(course: Path) -> NotebookNode:
    return nbformat.read(course / "source" / NAME / f"{NAME}.ipynb", as_version=4)


def mutated(course: Path) -> list[NotebookNode]:
    """The reference solution with one typical mistake each."""
    notebooks = []
    for grade_id, mutants in mutants_of(CHAPTER, layout_of("smoke")).items():
        for mutant in mutants:
            notebook = reference(course)
            (cell,) = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id]
            cell.source = mutant.applied_to(cell.source)
            notebooks.append(notebook)
    return notebooks


def attacking(course: Path) -> list[NotebookNode]:
    """The reference solution with a hostile cell at its end each."""
    notebooks = []
    for name in HOSTILE:
        notebook = reference(course)
        notebook.cells.append(new_code_cell(hostile.FATAL[name][0]))
        notebooks.append(notebook)
    return notebooks


def hand_in_all(course: Path) -> dict[str, str]:
    """Hand in; the kind of each student's submission."""
    untouched = nbformat.read(course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    choices = {
        "right": cycle([reference(course)]),
        "wrong": cycle(mutated(course)),
        "untouched": cycle([untouched]),
        "hostile": cycle(attacking(course)),
        "broken": cycle([None]),
    }
    order = cycle(["right", "wrong", "right", "hostile", "wrong", "untouched", "right", "wrong", "right", "broken"])
    kinds = {}
    for number in range(SUBMISSIONS):
        student, kind = f"student{number:03}", next(order)
        file = course / "submitted" / student / NAME / f"{NAME}.ipynb"
        file.parent.mkdir(parents=True)
        notebook = next(choices[kind])
        file.write_text("no notebook" if notebook is None else nbformat.writes(notebook))
        kinds[student] = kind
    return kinds


def killed_after(course: Path, count: int) -> dict[Path, int]:
    """Start to grade, kill it after some results; these, with the time at which they were written."""
    process = subprocess.Popen([*COMMAND, str(course), NAME], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = course / "grading" / NAME / "students"
    until = time.monotonic() + 300
    while len(list(results.glob("student*.json"))) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return {file: file.stat().st_mtime_ns for file in results.glob("student*.json")}


@pytest.mark.timeout(3600)
def test_a_class_is_graded(tmp_path):
    (tmp_path / "course.yml").write_text(COURSE)
    course = tmp_path / "course"
    list(make_course(read_course(tmp_path / "course.yml"), Exercises(layout_of("smoke")), course))
    (course / "grading.yml").write_text("limits: {seconds_per_cell: 30, seconds: 200, memory_mb: 2000}\n")
    kinds = hand_in_all(course)

    first = killed_after(course, 3)
    assert 3 <= len(first) < SUBMISSIONS
    done = subprocess.run([*COMMAND, str(course), NAME], capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SUBMISSIONS - len(first)} graded in " in done.stdout
    assert {file: file.stat().st_mtime_ns for file in first} == first

    with (course / "grading" / NAME / "grades.csv").open(newline="") as stream:
        rows = {row["student"]: row for row in csv.DictReader(stream)}
    assert list(rows) == sorted(kinds)
    by_tests = sum(c.metadata.nbgrader.points for c in reference(course).cells if is_test(c))
    for student, kind in kinds.items():
        score, outcome = float(rows[student]["score"]), rows[student]["outcome"]
        page = (course / "feedback" / student / NAME / f"{NAME}.html").read_text()
        if kind in ("right", "hostile"):
            assert score == by_tests, (student, kind, outcome)
        if kind == "wrong":
            assert 0 <= score < by_tests, (student, outcome)
            assert "failed" in page
        if kind in ("untouched", "broken"):
            assert score == 0
        assert (outcome == "graded") == (kind in ("right", "wrong", "untouched")), (student, kind, outcome)
        assert outcome.startswith("not graded: this is not a Jupyter notebook") == (kind == "broken")
        assert "HIDDEN TESTS" not in page


def is_test(cell: NotebookNode) -> bool:
    grading = cell.metadata.get("nbgrader", {})
    return bool(grading.get("grade") and not grading.get("solution") and cell.cell_type == "code")
