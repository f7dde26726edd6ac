"""A class with hostile students in it is graded: each has a clear outcome, and the others lose nothing."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from nbgrader.api import Gradebook

from tests.grading import hostile
from tests.grading.sample_course import NAME, hand_in, make_course, solved, with_cell

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap (bwrap) is not installed")

LIMITS = "limits: {seconds_per_cell: 8, seconds: 120, memory_mb: 1500, disk_mb: 64, notebook_mb: 1}\n"
WRONG = "def scaled(z, temperature):\n    return torch.softmax(z, -1)"


def grade(course: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the command as an instructor would."""
    command = [sys.executable, "-m", "dlatlas.publish", "grade", str(course), NAME, "--jobs", "2", *options]
    environment = {**os.environ, "SECRET_OF_THE_GRADER": "hush"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def hand_in_hostile(course: Path) -> None:
    """Hand in everything but honest work."""
    hand_in(course, "contained", _with_all_contained())
    for student, (source, _) in hostile.FATAL.items():
        hand_in(course, student, with_cell(source))
    hand_in(course, "patched-torch", solved(scaled=hostile.PATCHED_TORCH))
    hand_in(course, "patched-builtins", solved(scaled=hostile.PATCHED_BUILTINS + WRONG))
    hand_in(course, "quiet-exit", solved(scaled=hostile.QUIET_EXIT))
    hand_in(course, "spy", solved(scaled=hostile.SPY, penalty="x = 1"))
    hand_in(course, "no-json", solved()).write_text("%PDF-1.7")
    with hand_in(course, "large", solved()).open("wb") as stream:
        stream.truncate(200 * 2**20)
    link = hand_in(course, "link", solved())
    link.unlink()
    link.symlink_to(course / "gradebook.db")
    hand_in(course, "nothing", solved()).unlink()
    (course / "submitted" / "linked").symlink_to(course / "submitted" / "ann")
    hand_in(course, "missing-cells", _without("scaled-visible", "scaled-hidden", "penalty"))
    hand_in(course, "twice", _with_second("scaled", WRONG))
    hand_in(course, "claims", _claiming())
    for name in ("=cmd()", "a..b", "<script>alert(1)<"):
        hand_in(course, name.replace("/", ""), solved())


def _with_all_contained():
    notebook = solved()
    cells = [new_code_cell(source.replace("{pid}", str(os.getpid()))) for source, _ in hostile.CONTAINED.values()]
    notebook.cells[2:2] = cells
    return notebook


def _named(notebook, grade_id):
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def _without(*names):
    notebook = solved()
    notebook.cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") not in names]
    return notebook


def _with_second(grade_id, source):
    notebook = solved()
    cell = _named(notebook, grade_id)
    notebook.cells.insert(3, new_code_cell(source, metadata=cell.metadata))
    return notebook


def _claiming():
    notebook = solved(scaled=WRONG)
    _named(notebook, "scaled-hidden").update(source="assert True")
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader.update(points=1000, grade=True, solution=False, locked=False, checksum="0")
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Course folder, graded."""
    folder = make_course(tmp_path_factory.mktemp("courses") / "small")
    (folder.parent / "readable").mkdir()
    (folder / "grading.yml").write_text(f"{LIMITS}readable: [{folder.parent / 'readable'}]\n")
    hand_in(folder, "ann", solved(explain="Since it is so.\n\n<script>alert(1)</script>"))
    hand_in(folder, "bob", solved(scaled=WRONG))
    hand_in(folder, "idle", nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4))
    hand_in_hostile(folder)
    before = {file: file.lstat().st_mtime_ns for file in sorted((folder / "submitted").rglob("*"))}
    done = grade(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    after = {file: file.lstat().st_mtime_ns for file in sorted((folder / "submitted").rglob("*"))}
    assert after == before
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def rows(course) -> dict[str, dict[str, str]]:
    with (course / "grading" / NAME / "grades.csv").open(newline="") as stream:
        return {row["student"]: row for row in csv.DictReader(stream)}


def result(course: Path, student: str) -> dict:
    return json.loads((course / "grading" / NAME / "students" / f"{student}.json").read_text())


def page(course: Path, student: str) -> str:
    return (course / "feedback" / student / NAME / f"{NAME}.html").read_text()


def shown(course: Path, student: str) -> str:
    return (course / "autograded" / student / NAME / f"{NAME}.ipynb").read_text()


def test_honest_work_is_graded(rows):
    ann = rows["ann"]
    assert (ann["score"], ann["max"], ann["scaled"], ann["penalty"], ann["explain"]) == ("10", "14", "5", "5", "")
    assert (ann["awaiting"], ann["outcome"], ann["assignment"]) == ("explain", "graded", NAME)
    assert (rows["bob"]["score"], rows["bob"]["scaled"], rows["bob"]["penalty"]) == ("7", "2", "5")


def test_an_untouched_release_has_no_points(rows):
    assert (rows["idle"]["score"], rows["idle"]["explain"], rows["idle"]["awaiting"]) == ("0", "0", "")


def test_time_for_each_submission_is_said(course):
    said = (course / "said.txt").read_text()
    assert " s each" in said
    assert "fork-bomb: graded" in said


@pytest.mark.parametrize("what", list(hostile.CONTAINED))
def test_a_contained_cell_ends_with_an_error(course, what):
    cells = json.loads(shown(course, "contained"))["cells"]
    (cell,) = [c for c in cells if "".join(c["source"]).startswith(hostile.CONTAINED[what][0][:30].split("{")[0])]
    errors = [output["ename"] for output in cell["outputs"] if output["output_type"] == "error"]
    expected = hostile.CONTAINED[what][1]
    assert errors == ([expected] if expected else [])


def test_contained_cells_cost_no_points(rows):
    assert (rows["contained"]["score"], rows["contained"]["outcome"]) == ("10", "graded")


@pytest.mark.parametrize("student", list(hostile.FATAL))
def test_what_ends_the_process_is_left_out_and_told(rows, student):
    assert rows[student]["score"] == "10"
    first = hostile.FATAL[student][0].strip().split("\n")[0]
    assert rows[student]["outcome"].startswith(f"graded; your cell “{first}”")
    assert hostile.FATAL[student][1] in rows[student]["outcome"]


@pytest.mark.parametrize(
    ("student", "penalty"), [("patched-torch", "5"), ("patched-builtins", "5"), ("quiet-exit", "5")]
)
def test_patched_comparisons_and_quiet_exits_gain_nothing(rows, student, penalty):
    assert (rows[student]["scaled"], rows[student]["penalty"]) == ("0", penalty)


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ("no-json", "this is not a Jupyter notebook (JSONDecodeError)"),
        ("large", "hw1.ipynb has 200 MB; at most 1 MB are read"),
        ("link", "submitted/link/hw1/hw1.ipynb is a symbolic link"),
        ("linked", "submitted/linked is a symbolic link"),
        ("nothing", "hw1.ipynb was not handed in"),
    ],
)
def test_what_cannot_be_read_has_no_points_and_a_reason(course, rows, student, reason):
    assert (rows[student]["score"], rows[student]["outcome"]) == ("0", f"not graded: {reason}")
    assert reason in page(course, student)


@pytest.mark.parametrize("name", ["'=cmd()'", "'a..b'", "'<script>alert(1)<'"])
def test_odd_names_are_listed_and_not_graded(course, rows, name):
    assert rows[name]["outcome"].startswith("not graded: the name of the folder")
    assert not (course / "feedback" / name.strip("'")).exists()


def test_deleted_tests_are_run_and_deleted_solutions_have_no_points(rows):
    assert (rows["missing-cells"]["scaled"], rows["missing-cells"]["penalty"]) == ("5", "0")


def test_of_two_cells_with_one_name_the_last_counts(course, rows):
    assert rows["twice"]["scaled"] == "2"
    assert "scaled comes more than once; the last one counts" in page(course, "twice")


def test_points_and_tests_of_the_student_do_not_count(rows):
    assert (rows["claims"]["scaled"], rows["claims"]["max"]) == ("2", "14")


def test_a_spy_sees_nothing(course):
    text = shown(course, "spy")
    assert "FOUND [] VARIABLES" in text
    assert "HIDDEN [] SEEN" in text
    assert "hush" not in text
    assert str(course) not in text


def test_a_spy_carries_nothing_out(course, rows):
    seen = "".join(file.read_text() for folder in ("feedback", "autograded") for file in (course / folder).rglob("*.*"))
    assert "stolen [[1.0, 2.0, 4.0]]" in seen  # the visible test may be seen
    for secret in ("7310", "fresh = torch", "stolen [[-", "stolen [[0", "tanh"):
        assert secret not in seen
    assert rows["spy"]["scaled"] == "2"


def test_feedback_names_the_hint_and_no_more(course):
    text = page(course, "bob")
    assert "hidden test failed. Hint: What happens at other temperatures?" in text
    assert "not close" not in text
    assert "awaiting grading by hand" in text


def test_feedback_shows_what_went_wrong_in_visible_tests(course):
    text = page(course, "idle")
    assert "NotImplementedError" in text
    assert "torch.testing.assert_close(scaled(z, 1.0), torch.softmax(z, -1))" in text


def test_pages_hold_no_script_of_a_student(course):
    for file in (course / "feedback").rglob("*.html"):
        assert "<script" not in file.read_text()


def test_the_instructor_sees_why_a_hidden_test_failed(course):
    assert "Tensor-likes are not close" in result(course, "bob")["verdicts"]["scaled-hidden"]["trace"]


def test_scores_are_in_the_gradebook_of_nbgrader(course):
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        bob = gradebook.find_submission(NAME, "bob")
        assert (bob.score, bob.max_score, bob.needs_manual_grade) == (7, 14, True)
        assert gradebook.find_submission(NAME, "idle").needs_manual_grade is False


def test_no_process_is_left(course):
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(course.parent / "readable") not in running
