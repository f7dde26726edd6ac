"""What the site shows of graded exercises, and what the guide says about them."""

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from dlatlas.publish.assignments.course import read_course
from dlatlas.publish.assignments.exercises import graded_exercises
from dlatlas.publish.assignments.selection import Exercises
from dlatlas.publish.chapter_pages import chapter_page
from dlatlas.publish.chapters import layout_of
from dlatlas.publish.cli import app
from dlatlas.publish.exercises import exercises_of
from dlatlas.publish.layout import Layout
from dlatlas.publish.pages import Book

ROOT = Path(__file__).parents[2]
COURSE = read_course(ROOT / "book" / "course.yml")
CHAPTERS = sorted({chapter for assignment in COURSE.assignments.values() for chapter in assignment.chapters})
TEACHING = (ROOT / "book" / "guide" / "teaching.md").read_text()
FOLDED = re.compile(r"\{solution(?:-start)?\}[^\n]*\n:class: dropdown")


@pytest.fixture(scope="module")
def layout() -> Layout:
    return layout_of("cpu")


def unexecuted(chapter: str, layout: Layout, tmp_path: Path) -> list[dict]:
    """Cells of the page of a chapter that was not run."""
    (tmp_path / "notebooks").symlink_to(layout.root / "notebooks")
    elsewhere = Layout(tmp_path, "cpu")
    return json.loads(chapter_page(chapter, Book.read(elsewhere)))["cells"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_site_has_no_hidden_test_of_any_exercise(chapter, layout, tmp_path):
    cells = unexecuted(chapter, layout, tmp_path)
    shown = "\n".join("".join(cell["source"]) for cell in cells)
    assert "HIDDEN TESTS" not in shown
    hidden = [part.cell.source for exercise in graded_exercises(chapter, layout) for part in exercise.tests]
    blocks = [block for source in hidden for block in re.findall(r"(?s)### BEGIN HIDDEN TESTS\n(.*?)\n### END", source)]
    assert len(blocks) >= 2
    for block in blocks:
        assert block not in shown


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_site_folds_every_solution(chapter, layout, tmp_path):
    folded, open_solution = 0, False
    for cell in unexecuted(chapter, layout, tmp_path):
        source, about = "".join(cell["source"]), cell["metadata"].get("nbgrader", {})
        if cell["cell_type"] == "markdown":
            open_solution = (open_solution or "{solution-start}" in source) and "{solution-end}" not in source
        if about.get("solution"):
            assert "hide-input" in cell["metadata"].get("tags", []) or FOLDED.search(source) or open_solution
            folded += 1
    assert folded >= 4


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_list_of_exercises_counts_written_answers_as_graded(chapter, layout):
    graded = {exercise.label for exercise in exercises_of(chapter, layout) if exercise.graded}
    assert graded == {exercise.label for exercise in graded_exercises(chapter, layout)}


def test_course_file_of_the_guide_is_right(layout, tmp_path):
    (example,) = re.findall(r"(?s)```yaml\n(.*?)```", TEACHING)
    file = tmp_path / "course.yml"
    file.write_text(example)
    course = read_course(file)
    exercises = Exercises(layout)
    points = {name: [chosen.points for chosen in exercises.chosen(name, course)] for name in course.assignments}
    assert points["hw2"][0] == 20
    assert len(points["hw2"]) == 2


def test_commands_of_the_guide_exist():
    commands = get_command(app).commands
    named = re.findall(r"^dlatlas (\w+)(?: (make|check))?", TEACHING, re.MULTILINE)
    assert {name for name, _ in named} == {"assignments", "validate", "grade"}
    for name, sub in named:
        assert name in commands
        assert not sub or sub in commands[name].commands
    assert re.search(r"^assignments:", (ROOT / "Makefile").read_text(), re.MULTILINE)
