"""What students are told about their notebook."""

import json
from pathlib import Path

import pytest

from dlatlas.publish.assignments.checksum import checksum
from dlatlas.publish.assignments.validate import Report, validate
from dlatlas.publish.errors import UserError

VISIBLE = """got = double(3)
assert isinstance(got, int), f"expected a whole number, got {type(got).__name__}"
assert got == 6, f"twice 3: expected 6, got {got}"
assert (
    double(0)
    == 0
)"""


def cell(source: str, grade_id: str = "", kind: str = "code", **about) -> dict:
    metadata = {}
    if grade_id:
        metadata = {"nbgrader": {"grade_id": grade_id, "grade": False, "solution": False, "locked": False} | about}
    content = {"cell_type": kind, "source": source, "metadata": metadata}
    if about.get("locked"):
        metadata["nbgrader"]["checksum"] = checksum(content)
    return content


def student(solution: str, answer: str = "Because.", second: str = "def triple(x):\n    return 3 * x") -> dict:
    cells = [
        cell("%pip --version\n"),
        cell(solution, "double", solution=True),
        cell(VISIBLE, "double-visible", grade=True, locked=True, points=2),
        cell(answer, "why", "markdown", grade=True, solution=True, points=3),
        cell(second, "triple", solution=True),
        cell("assert triple(1) == 3", "triple-visible", grade=True, locked=True, points=1),
    ]
    exercises = [
        {"label": "ex-double", "title": "Twice", "cells": ["double", "double-visible"]},
        {"label": "ex-why", "title": "Why", "cells": ["why"]},
        {"label": "ex-triple", "title": "Thrice", "cells": ["triple", "triple-visible"]},
    ]
    ids = [grade_id for exercise in exercises for grade_id in exercise["cells"]]
    about = {"dlatlas": {"cells": ids, "exercises": exercises}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def report(tmp_path: Path, content: dict, seconds: float = 30) -> Report:
    file = tmp_path / "hw1.ipynb"
    file.write_text(json.dumps(content))
    return validate(file, seconds)


def outcomes(found: Report) -> list[str]:
    return [verdict.outcome for verdict in found.verdicts]


RIGHT = "def double(x):\n    return 2 * x"


def test_complete_notebook_passes(tmp_path):
    found = report(tmp_path, student(RIGHT))
    assert outcomes(found) == ["passed", "graded by hand", "passed"]
    assert found.passed
    assert found.text.endswith("Everything that you can see passes; grading runs more tests.")


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        ("def double(x):\n    return 2.0 * x", "`double-visible`: expected a whole number, got float"),
        ("def double(x):\n    return x", "`double-visible`: twice 3: expected 6, got 3"),
        ("def double(x):\n    return 2 * x or 1", "`double-visible`: expected double(0) == 0"),
        ("def double(x):\n    raise NotImplementedError()", "not written yet"),
        ("raise NotImplementedError()", "not written yet"),
        (
            "def double(x):\n    return {}[x]",
            "`double-visible`: your code raised KeyError: 3\n(it was called in `got = double(3)`)",
        ),
        ("def double(x)\n    return x", "`double`: your code raised SyntaxError"),
        ("import sys\nsys.exit(0)", "`double`: your code raised SystemExit: 0"),
    ],
)
def test_wrong_solution_is_told_what_was_expected(tmp_path, solution, message):
    found = report(tmp_path, student(solution))
    assert outcomes(found)[0] == "FAILED"
    assert outcomes(found)[2] == "passed"
    assert not found.passed
    assert any(text.startswith(message) for text in found.verdicts[0].messages), found.verdicts[0].messages


def test_unwritten_answer_is_not_finished(tmp_path):
    found = report(tmp_path, student(RIGHT, answer="YOUR ANSWER HERE"))
    assert outcomes(found) == ["passed", "NOT FINISHED", "passed"]
    assert found.verdicts[1].messages == ("`why`: not written yet",)
    assert not found.passed


def test_cell_that_never_ends_does_not_hide_the_others(tmp_path):
    found = report(tmp_path, student("while True:\n    pass"), seconds=3)
    assert outcomes(found) == ["FAILED", "graded by hand", "passed"]
    assert "`double`: the cell did not end within 3 seconds" in found.verdicts[0].messages[0]


def test_cell_that_ends_python_does_not_hide_the_others(tmp_path):
    found = report(tmp_path, student("import os\nos._exit(0)"))
    assert outcomes(found) == ["FAILED", "graded by hand", "passed"]
    assert "the cell ended Python" in found.verdicts[0].messages[0]


def test_missing_cell_is_named(tmp_path):
    content = student(RIGHT)
    del content["cells"][2]
    found = report(tmp_path, content)
    assert found.warnings[0].startswith("The cell `double-visible` is missing")
    assert not found.passed


def test_copied_cell_is_named(tmp_path):
    content = student(RIGHT)
    content["cells"].append(content["cells"][1])
    found = report(tmp_path, content)
    assert found.warnings[0].startswith("The cell `double` is there 2 times")


@pytest.mark.parametrize("edit", ["source", "points"])
def test_edited_test_is_named(tmp_path, edit):
    content = student("def double(x):\n    return 7")
    if edit == "source":
        content["cells"][2]["source"] = "pass"
    else:
        del content["cells"][2]["metadata"]["nbgrader"]["points"]
    found = report(tmp_path, content)
    assert found.warnings[0].startswith("The cell `double-visible` is locked and was changed")
    assert not found.passed


def test_notebook_without_its_list_of_exercises_is_checked_all_the_same(tmp_path):
    content = student("def double(x):\n    return x")
    content["metadata"] = {}
    found = report(tmp_path, content)
    assert [(verdict.title, verdict.outcome) for verdict in found.verdicts] == [("all exercises", "FAILED")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print(1)", "is not a notebook: a notebook is JSON"),
        ("", "is not a notebook: a notebook is JSON"),
        ("[1, 2]", "is not a notebook: it is JSON without a list of cells"),
        ('{"cells": [1]}', "is not a notebook: it is JSON without a list of cells"),
        ('{"cells": [{"cell_type": "code", "source": "1", "metadata": {}}]}', "not one of an assignment"),
    ],
)
def test_what_is_no_assignment_is_refused(tmp_path, text, reason):
    file = tmp_path / "hw1.ipynb"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        validate(file, 5)
    assert reason in str(caught.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"hw9\.ipynb is not there"):
        validate(tmp_path / "hw9.ipynb", 5)
