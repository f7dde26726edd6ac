"""Course folders of nbgrader: what students get, and that it runs without anything else."""

import re
from datetime import datetime
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.utils import compute_checksum

from dlatlas.publish.assignments.checksum import checksum
from dlatlas.publish.assignments.course import Course, read_course
from dlatlas.publish.assignments.execution import execute
from dlatlas.publish.assignments.notebook import import_block
from dlatlas.publish.assignments.release import make_course
from dlatlas.publish.assignments.selection import Exercises
from dlatlas.publish.assignments.slicing import statements
from dlatlas.publish.chapters import layout_of
from dlatlas.publish.errors import UserError
from tests.assignments.sample import COURSE, sample_book, sample_course

COURSE_FILE = Path(__file__).parents[2] / "book" / "course.yml"
ASSIGNMENTS = list(read_course(COURSE_FILE).assignments)
STUB = "raise NotImplementedError()"


def notebook(folder: Path, stage: str, name: str) -> nbformat.NotebookNode:
    return nbformat.read(folder / stage / name / f"{name}.ipynb", as_version=4)


def by_id(content: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    return {cell.metadata.nbgrader.grade_id: cell for cell in content.cells if "nbgrader" in cell.metadata}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Course folder of the sample book."""
    root = tmp_path_factory.mktemp("small")
    list(make_course(sample_course(root), Exercises(sample_book(root)), root / "course"))
    return root / "course"


@pytest.fixture(scope="module")
def course() -> Course:
    return read_course(COURSE_FILE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, course) -> Path:
    """Course folder of the assignments that come with the book."""
    place = tmp_path_factory.mktemp("course")
    list(make_course(course, Exercises(layout_of("cpu")), place))
    return place


def test_release_has_neither_solutions_nor_hidden_tests(small):
    cells = by_id(notebook(small, "release", "hw1"))
    assert cells["quarter"].source.endswith(f"    # YOUR CODE HERE\n    {STUB}")
    assert cells["quarter-why"].source == "YOUR ANSWER HERE"
    assert cells["quarter-hidden"].source.strip() == "# Tests that you do not see run here."
    source = by_id(notebook(small, "source", "hw1"))
    assert "half(half(x))" in source["quarter"].source
    assert "Fraction(3, 4)" in source["quarter-hidden"].source
    assert source["quarter-why"].source == "Half of a half, by (1)."


def test_release_opens_with_title_facts_and_installation(small):
    opening, install, *_ = notebook(small, "release", "hw1").cells
    assert opening.source.startswith(
        "# Quarters\n\n*Halves, assignment `hw1`: 1 exercise, 20 points, due Monday, 18 Oct"
    )
    assert "23:59 (UTC+02:00)" in opening.source
    assert '%pip install --quiet "dlatlas==1.2"' in install.source


def test_points_follow_the_course_file(small):
    cells = by_id(notebook(small, "release", "hw1"))
    points = {name: cell.metadata.nbgrader.points for name, cell in cells.items() if cell.metadata.nbgrader.grade}
    assert points == {"quarter-visible": 4, "quarter-hidden": 6, "quarter-why": 10}


def test_gradebook_knows_points_and_due_date(small):
    with Gradebook(f"sqlite:///{small / 'gradebook.db'}", "halves") as gradebook:
        assignment = gradebook.find_assignment("hw1")
        assert assignment.duedate == datetime(2027, 10, 18, 21, 59)  # universal time
        assert assignment.max_score == 20
        hidden = gradebook.find_source_cell("quarter-hidden", "hw1", "hw1")
        assert "Fraction(3, 4)" in hidden.source


def test_zip_holds_notebook_and_requirements(small):
    with ZipFile(small / "handout" / "hw1.zip") as archive:
        assert sorted(archive.namelist()) == ["hw1/hw1.ipynb", "hw1/requirements.txt"]
        assert archive.read("hw1/requirements.txt").decode().splitlines()[0] == "dlatlas==1.2"
        assert archive.read("hw1/hw1.ipynb") == (small / "release" / "hw1" / "hw1.ipynb").read_bytes()


def test_making_the_course_again_keeps_what_was_handed_in(tmp_path):
    handed_in = tmp_path / "course" / "submitted" / "ada" / "hw1" / "hw1.ipynb"
    handed_in.parent.mkdir(parents=True)
    handed_in.write_text("work")
    exercises = Exercises(sample_book(tmp_path))
    for title in ("Quarters", "Fourths"):
        course = sample_course(tmp_path, COURSE.replace("title: Quarters", f"title: {title}"))
        list(make_course(course, exercises, tmp_path / "course"))
        assert notebook(tmp_path / "course", "release", "hw1").cells[0].source.startswith(f"# {title}")
    assert handed_in.read_text() == "work"


def test_one_name_for_two_imports_is_refused():
    with pytest.raises(UserError, match="one name for two imports"):
        import_block(statements("from a import f\nfrom b import f"))


def test_imports_are_gathered_by_module():
    given = statements("from b import g, f as h\nimport b\nimport a.c as d\nfrom dlatlas.x import y\nimport b")
    assert import_block(given) == "import a.c as d\nimport b\nfrom b import f as h, g\nfrom dlatlas.x import y"


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_assignment_is_a_mix_of_tested_and_written_answers(folder, name):
    graded = [
        c.metadata.nbgrader for c in by_id(notebook(folder, "release", name)).values() if c.metadata.nbgrader.grade
    ]
    tested = sum(about.points for about in graded if not about.solution)
    written = sum(about.points for about in graded if about.solution)
    assert 0.3 < tested / (tested + written) < 0.7


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_release_shows_no_answer(folder, name):
    text = (folder / "release" / name / f"{name}.ipynb").read_text()
    for mark in ("BEGIN SOLUTION", "HIDDEN TESTS", "solution-start", "{eq}", "{numref}", "{cite", "{ref}"):
        assert mark not in text
    source, release = (by_id(notebook(folder, stage, name)) for stage in ("source", "release"))
    assert source.keys() == release.keys()
    for grade_id, cell in release.items():
        if cell.metadata.nbgrader.solution:
            assert STUB in cell.source or cell.source == "YOUR ANSWER HERE"
            assert cell.source != source[grade_id].source


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_locked_cells_carry_the_checksum_that_students_compare(folder, name):
    for cell in by_id(notebook(folder, "release", name)).values():
        assert checksum(cell) == compute_checksum(cell) == cell.metadata.nbgrader.checksum


@pytest.mark.slow
@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_zip_with_reference_solutions_runs_by_itself(folder, name, tmp_path):
    """The students' notebook, filled in, and the hidden tests in place again, in an empty folder."""
    with ZipFile(folder / "handout" / f"{name}.zip") as archive:
        archive.extractall(tmp_path)
    file = tmp_path / name / f"{name}.ipynb"
    content, source = nbformat.read(file, as_version=4), by_id(notebook(folder, "source", name))
    for grade_id, cell in by_id(content).items():
        cell.source = source[grade_id].source
    outcomes = execute(file, content, 300)
    assert len(outcomes) == sum(cell.cell_type == "code" for cell in content.cells)
    assert {number: outcome["error"] for number, outcome in outcomes.items() if outcome["error"]} == {}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_set_up_holds_no_experiment(folder, name):
    cells = notebook(folder, "release", name).cells
    set_up = [cell.source for cell in cells if cell.source.startswith("# From the chapter.")]
    assert not re.search(r"run\.(check|claim)|plt\.|lab\.fit", "\n".join(set_up))
