"""What is read from the instructor's notebook."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dlatlas.publish.errors import UserError
from dlatlas.publish.grading.assignment import Assignment, load_assignment
from dlatlas.publish.grading.names import bound_names, imported_modules, used_names
from dlatlas.publish.grading.settings import Settings, load_settings
from tests.grading.sample_course import NAME, _graded, make_course, source_notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return make_course(tmp_path_factory.mktemp("course") / "small")


@pytest.fixture
def assignment(course) -> Assignment:
    return load_assignment(course, NAME)


def of(*cells) -> Assignment:
    notebook = new_notebook(cells=list(cells))
    return Assignment("x", notebook, notebook)


def test_hidden_parts_are_told_from_visible_ones(assignment):
    tests = {test.grade_id: test for test in assignment.tests}
    assert not tests["scaled-visible"].is_hidden
    assert tests["scaled-hidden"].is_hidden
    assert tests["scaled-hidden"].visible.strip() == "assert scaled(z, 2.0).shape == z.shape"
    assert "7310" in tests["scaled-hidden"].source


def test_a_hint_is_read_from_the_hidden_part(assignment):
    hints = {test.grade_id: test.hint for test in assignment.tests}
    expected = {"scaled-visible": None, "scaled-hidden": "What happens at other temperatures?", "penalty-hidden": None}
    assert hints == expected


def test_each_solution_begins_an_exercise(assignment):
    exercises = {exercise.name: [cell.grade_id for cell in exercise.cells] for exercise in assignment.exercises}
    assert exercises == {
        "scaled": ["scaled", "scaled-visible", "scaled-hidden"],
        "penalty": ["penalty", "penalty-hidden"],
        "explain": ["explain"],
    }
    assert [exercise.points for exercise in assignment.exercises] == [5, 5, 4]
    assert assignment.points == 14


def test_the_exercises_that_a_notebook_lists_are_taken():
    notebook = source_notebook()
    listed = [
        {"label": "ex-both", "title": "Both", "cells": ["scaled", "scaled-visible", "scaled-hidden", "penalty-hidden"]}
    ]
    notebook.metadata["dlatlas"] = {"exercises": listed}
    exercises = Assignment(NAME, notebook, notebook).exercises
    assert [(exercise.name, exercise.title, exercise.points) for exercise in exercises] == [
        ("ex-both", "Both", 10),
        ("explain", "explain", 4),
    ]


def test_names_that_students_define_are_known_to_the_tests(assignment):
    assert assignment.student_names == {"scaled", "penalty"}
    assert [assignment.names_before(test) for test in assignment.tests] == [
        ["scaled"],
        ["scaled"],
        ["penalty", "scaled"],
    ]


def test_cells_that_show_what_students_did_are_not_run_with_the_tests(assignment):
    assert "shown =" not in "".join(source for _, source in assignment.run_with_tests)


def test_cells_that_a_test_needs_are_run_with_the_tests():
    cells = of(
        new_code_cell("import torch"),
        _graded("### BEGIN SOLUTION\nimport math\nrate = math.pi\n### END SOLUTION", "s", solution=True),
        new_code_cell("doubled = 2 * rate"),
        new_code_cell("unneeded = 3 * rate"),
        new_code_cell("torch.set_num_threads(1)"),
        _graded("assert doubled > 6", "t", grade=True, points=1),
    ).run_with_tests
    assert [source for _, source in cells] == [
        "import torch",
        "import math",
        "doubled = 2 * rate",
        "torch.set_num_threads(1)",
        "assert doubled > 6",
    ]


def test_names_of_a_cell():
    source = "%matplotlib inline\nimport a.b as c\nfrom d import e\nx, (y, *z) = f(w)\nfor i in g: h = [j for j in k]\n"
    source += "with open(l) as m:\n    n: int = 1\ndef p(q):\n    r = 1\nclass S: t = 1\nif (u := 2): pass\n"
    assert bound_names(source) == {"x", "y", "z", "i", "h", "m", "n", "p", "S", "u"}
    assert {"f", "w", "g", "k", "l"} <= used_names(source)
    assert imported_modules(source) == ["a.b", "d"]


def test_a_missing_assignment_is_said(course):
    with pytest.raises(UserError, match=r"hw9\.ipynb is not there"):
        load_assignment(course, "hw9")


def test_a_source_that_was_changed_after_its_release_is_refused(tmp_path):
    course = make_course(tmp_path / "changed")
    file = course / "source" / NAME / f"{NAME}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    notebook.cells[3].metadata.nbgrader["points"] = 20
    nbformat.write(notebook, file)
    with pytest.raises(UserError, match="differ in scaled-visible; make the release again"):
        load_assignment(course, NAME)


def test_settings_are_read_and_checked(tmp_path):
    assert load_settings(tmp_path) == Settings()
    file = tmp_path / "grading.yml"
    file.write_text("limits: {seconds: 5}\nreadable: [/data]\n")
    assert load_settings(tmp_path).limits.seconds == 5
    for text, reason in [
        ("limits: {hours: 1}", "limits.hours"),
        ("limits: {seconds: 0}", "limits.seconds"),
        ("a: [", "grading.yml"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=reason):
            load_settings(tmp_path)
