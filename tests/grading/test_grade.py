"""Grading as a whole, with honest submissions: what is written, what is kept, and where it refuses."""

import csv
import shutil
import sys
from pathlib import Path

import pytest
from nbgrader.api import Gradebook
from typer.testing import CliRunner

from dlatlas.publish.cli import app
from dlatlas.publish.errors import UserError
from dlatlas.publish.grading import sandbox
from dlatlas.publish.grading.grade import Grading
from dlatlas.publish.grading.sandbox import choose_sandbox
from dlatlas.publish.grading.session import Run, open_worker
from dlatlas.publish.grading.settings import Limits, Settings
from tests.grading.sample_course import NAME, hand_in, make_course, solved

CONTAINER = """#!/bin/sh
# Stands for a container runtime: checks its options, and runs the rest here.
[ "$1 $2 $4 $5" = "run --memory --pids-limit 64" ] || exit 9
shift 6
exec "{python}" "$@"
"""


@pytest.fixture
def course(tmp_path) -> Path:
    return make_course(tmp_path / "course")


def graded(course: Path) -> dict[str, dict[str, str]]:
    """Grade without a sandbox; the table."""
    grading = Grading(course, NAME, unsafe=True)
    list(grading.run(grading.waiting(), jobs=1))
    grading.write_pages()
    with grading.table.open(newline="") as stream:
        return {row["student"]: row for row in csv.DictReader(stream)}


def page(course: Path, student: str) -> str:
    return (course / "feedback" / student / NAME / f"{NAME}.html").read_text()


def test_what_is_graded_stays_until_something_changes(course):
    files = {student: hand_in(course, student, solved()) for student in ("ann", "bob")}
    assert [row["score"] for row in graded(course).values()] == ["10", "10"]
    assert Grading(course, NAME, unsafe=True).waiting() == []

    files["bob"].write_text("gone")
    (waiting,) = Grading(course, NAME, unsafe=True).waiting()
    assert waiting.student == "bob"
    rows = graded(course)
    assert (rows["ann"]["score"], rows["bob"]["score"]) == ("10", "0")

    (course / "grading.yml").write_text("limits: {seconds_per_cell: 59}")
    assert len(Grading(course, NAME, unsafe=True).waiting()) == 2


def test_points_and_comments_given_by_hand_reach_the_table_and_the_page(course):
    hand_in(course, "ann", solved(explain="Since it is so."))
    assert graded(course)["ann"]["awaiting"] == "explain"
    assert "awaiting grading by hand" in page(course, "ann")
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("explain", NAME, NAME, "ann")
        grade.manual_score, grade.needs_manual_grade = 3, False
        gradebook.find_comment("explain", NAME, NAME, "ann").manual_comment = "Almost <b>there</b>."
        gradebook.db.commit()
    row = graded(course)["ann"]
    assert (row["score"], row["explain"], row["awaiting"]) == ("13", "3", "")
    assert "Almost &lt;b&gt;there&lt;/b&gt;." in page(course, "ann")
    assert "13 of 14 points" in page(course, "ann")


def test_a_late_submission_is_entered_as_such(course):
    file = hand_in(course, "ann", solved())
    (file.parent / "timestamp.txt").write_text("2030-02-01 12:00:00 UTC")
    graded(course)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        assert gradebook.find_submission(NAME, "ann").timestamp.isoformat() == "2030-02-01T12:00:00"
    (file.parent / "timestamp.txt").write_text("the day after")
    file.write_text("changed")
    assert graded(course)["ann"]["score"] == "0"


def test_a_score_in_parts_is_taken_from_the_value_of_a_test(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.grading.sample_course.SCALED_VISIBLE", "z = torch.ones(1, 3)\nscaled(z, 1.0).sum().item() / 2\n"
    )
    course = make_course(tmp_path / "course")
    hand_in(course, "ann", solved())
    assert graded(course)["ann"]["scaled"] == "3.5"
    assert "partly" in page(course, "ann")


def test_without_a_sandbox_nothing_is_graded(course, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    hand_in(course, "ann", solved())
    with pytest.raises(UserError, match="nothing here to run them in safely"):
        Grading(course, NAME, unsafe=False)
    assert not (course / "grading").exists()


def test_a_container_is_used_where_bubblewrap_is_not(course, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    runtime, stopped = tmp_path / "runtime", tmp_path / "stopped"
    runtime.write_text(CONTAINER.format(python=sys.executable))
    runtime.chmod(0o755)
    settings = Settings(
        container=f"{runtime} run --memory {{memory_mb}}m --pids-limit {{processes}} python-image",
        container_stop=f"cp {runtime} {stopped}-{{name}}",
    )
    runtime.write_text(runtime.read_text().replace("shift 6", "shift 7"))
    worker = open_worker(choose_sandbox(settings, course, [], unsafe=False), sandbox.STUDENT, Limits())
    assert not list(tmp_path.glob("stopped-*"))
    worker.close()
    assert len(list(tmp_path.glob("stopped-dlatlas-*"))) == 1


def test_a_sandbox_that_does_not_start_says_why(course, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    (course / "grading.yml").write_text("container: sh -c 'echo no such image >&2; exit 1'")
    hand_in(course, "ann", solved())
    grading = Grading(course, NAME, unsafe=False)
    with pytest.raises(UserError, match="no such image"):
        list(grading.run(grading.waiting(), jobs=1))


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap (bwrap) is not installed")
def test_a_course_folder_that_submissions_could_read_is_refused(course):
    settings = Settings(readable=(course.parent,))
    with pytest.raises(UserError, match="which every submission can read"):
        choose_sandbox(settings, course, [], unsafe=False)


def test_files_that_came_with_the_notebook_are_there(course):
    (course / "release" / NAME / "data.txt").write_text("41")
    answer = "assert open('data.txt').read() == '41'\n" + "def scaled(z, t):\n    return torch.softmax(z / t, -1)"
    hand_in(course, "ann", solved(scaled=answer))
    assert graded(course)["ann"]["scaled"] == "5"


def test_a_folder_without_a_gradebook_is_refused(tmp_path):
    with pytest.raises(UserError, match="no gradebook"):
        Grading(tmp_path, NAME, unsafe=True)


def test_a_failure_of_the_grader_is_told_and_tried_again(course, monkeypatch):
    hand_in(course, "ann", solved())

    def fail(*_):
        raise OSError("no more files")

    with monkeypatch.context() as broken:
        broken.setattr("dlatlas.publish.grading.session.Session.grade", fail)
        done = CliRunner().invoke(app, ["grade", str(course), NAME, "--unsafe"])
    assert done.exit_code == 1
    assert "the grader failed: OSError: no more files" in done.output
    assert [item.student for item in Grading(course, NAME, unsafe=True).waiting()] == ["ann"]


def test_nothing_new_is_said(course):
    done = CliRunner().invoke(app, ["grade", str(course), NAME, "--unsafe"])
    assert done.exit_code == 0, done.output
    assert "Nothing new to grade." in done.output


def test_a_gradebook_that_cannot_be_written_costs_nothing_but_time(course, monkeypatch):
    hand_in(course, "ann", solved())

    def fail(*_):
        raise OSError("database is locked")

    with monkeypatch.context() as broken:
        broken.setattr("dlatlas.publish.grading.gradebook.Course.save", fail)
        broken.setattr("dlatlas.publish.grading.session.Session.grade", lambda *_: Run())
        grading = Grading(course, NAME, unsafe=True)
        list(grading.run(grading.waiting(), jobs=1))
    assert grading.failures == {"ann": "it could not be written: OSError: database is locked"}
    assert [item.student for item in Grading(course, NAME, unsafe=True).waiting()] == ["ann"]
