"""Submissions are read with suspicion, and only the student's part of them counts."""

import json
import os

import pytest
from nbformat import NotebookNode, from_dict
from nbformat.v4 import new_code_cell, new_notebook

from dlatlas.publish.grading.submission import Piece, Unreadable, merge, parse, read_bytes, require_name
from tests.grading.sample_course import source_notebook


def notebook_bytes(*cells: dict) -> bytes:
    return json.dumps({"cells": list(cells), "nbformat": 4, "nbformat_minor": 5, "metadata": {}}).encode()


def code(source, grade_id: str | None = None, **grading) -> dict:
    metadata = {"nbgrader": {"grade_id": grade_id} | grading} if grade_id else {}
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [], "execution_count": None}


@pytest.fixture
def release() -> NotebookNode:
    return source_notebook()


def merged(release, *cells: dict):
    submission = merge(parse(notebook_bytes(*cells)), release)
    return {piece.grade_id or piece.source: piece.source for piece in submission.pieces}, submission.remarks


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4 no json",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"cells": {}}',
        b'{"cells": [1]}',
        b'{"cells": [{}]}',
        b'{"cells": [{"cell_type": "code"}]}',
        b'{"cells": [{"cell_type": "code", "source": 3}]}',
        b'{"cells": [{"cell_type": "code", "source": [1]}]}',
        b'{"cells": [{"cell_type": "widget", "source": ""}]}',
        b'{"cells": [{"cell_type": ["code"], "source": ""}]}',
        b'{"cells": ' + b"[" * 100_000,
        notebook_bytes(*[code("")] * 2001),
    ],
)
def test_what_is_no_notebook_is_refused_with_a_reason(data):
    with pytest.raises(Unreadable, match="not a"):
        parse(data)


@pytest.mark.parametrize(
    "metadata", [None, 1, {"nbgrader": 1}, {"nbgrader": {"grade_id": ["x"]}}, {"nbgrader": {"grade_id": {"a": 1}}}]
)
def test_odd_metadata_do_no_harm(metadata):
    cell = code("x = 1") | {"metadata": metadata, "attachments": {"a.png": 3, "b.png": {"text/html": "<script>"}}}
    assert parse(notebook_bytes(cell)) == [Piece("code", "x = 1")]


def test_pictures_in_answers_are_kept():
    cell = {"cell_type": "markdown", "source": "![](a.png)", "attachments": {"a.png": {"image/png": "iVBO"}}}
    assert parse(notebook_bytes(cell))[0].attachments == {"a.png": {"image/png": "iVBO"}}


def test_half_a_character_is_replaced():
    assert parse(b'{"cells": [{"cell_type": "code", "source": "\\ud800"}]}') == [Piece("code", "?")]


def test_edited_tests_are_put_back(release):
    cells, remarks = merged(release, code("assert True", "scaled-hidden"), code("mine", "scaled"))
    assert cells["scaled-hidden"] == release.cells[4].source
    assert cells["scaled"] == "mine"
    assert "scaled-hidden was changed; it was put back as it was handed out" in remarks


def test_deleted_tests_are_put_back_and_deleted_solutions_are_empty(release):
    cells, remarks = merged(release)
    assert cells["scaled-hidden"] == release.cells[4].source
    assert cells["scaled"] == ""
    assert "penalty is missing" in remarks
    assert "penalty-hidden is missing; it was put back" in remarks


def test_the_last_of_two_cells_with_one_name_counts(release):
    cells, remarks = merged(release, code("first", "scaled"), code("second", "scaled"), code("third", "scaled"))
    assert cells["scaled"] == "third"
    assert {"first", "second"} <= set(cells)
    assert "scaled comes more than once; the last one counts" in remarks


def test_own_cells_stay_where_they_are_and_tests_keep_their_order(release):
    own, last = code("helper = 1"), code("after = 1")
    cells, _ = merged(release, code("", "penalty"), last, code("", "imports"), own, code("", "scaled"))
    order = list(cells)
    assert order.index("imports") < order.index("helper = 1") < order.index("scaled")
    assert order.index("scaled-hidden") < order.index("penalty") < order.index("after = 1")


def test_metadata_of_the_student_do_not_count(release):
    claim = code("return 1", "scaled-visible", points=1000, grade=False, solution=True, locked=False)
    cells, _ = merged(release, claim)
    assert cells["scaled-visible"] == release.cells[3].source


def test_a_cell_keeps_the_kind_that_it_was_handed_out_with(release):
    cell = {"cell_type": "markdown", "source": "x = 1", "metadata": {"nbgrader": {"grade_id": "scaled"}}}
    pieces = merge(parse(notebook_bytes(cell)), release).pieces
    assert next(piece for piece in pieces if piece.grade_id == "scaled").cell_type == "code"


def test_cells_that_nobody_handed_out_are_the_students_own(release):
    cells, _ = merged(release, code("x = 1", "made-up", grade=True, points=50))
    assert "made-up" not in cells
    assert cells["x = 1"] == "x = 1"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "a/../b",
        "../x",
        "a..b",
        "=cmd()",
        "-x",
        "a\nb",
        "a\x1b[2J",
        "<script>",
        " a",
        "a ",
        "",
        "x" * 101,
        "a\u202eb",
    ],
)
def test_names_that_could_mean_something_else_are_refused(name):
    with pytest.raises(Unreadable, match="name of the folder"):
        require_name(name)


@pytest.mark.parametrize("name", ["ann", "s12345", "jörg_müller", "a.b@school.edu", "Ann Lee-Smith", "学生"])
def test_names_of_students_are_accepted(name):
    require_name(name)


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "gradebook.db"
    secret.write_text("secret")
    folder = tmp_path / "submitted" / "ann" / "hw1"
    folder.mkdir(parents=True)
    (folder / "hw1.ipynb").symlink_to(secret)
    with pytest.raises(Unreadable, match="symbolic link"):
        read_bytes(tmp_path, folder / "hw1.ipynb", 1)
    (folder / "hw1.ipynb").unlink()
    (folder / "hw1.ipynb").write_text("{}")
    (tmp_path / "submitted" / "eve").symlink_to(tmp_path / "submitted" / "ann")
    with pytest.raises(Unreadable, match="submitted/eve is a symbolic link"):
        read_bytes(tmp_path, tmp_path / "submitted" / "eve" / "hw1" / "hw1.ipynb", 1)


def test_pipes_folders_and_missing_files_are_no_submission(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    for name, reason in [("pipe", "is not a file"), ("folder", "is not a file"), ("none", "was not handed in")]:
        with pytest.raises(Unreadable, match=reason):
            read_bytes(tmp_path, tmp_path / f"{name}.ipynb", 1)


def test_a_notebook_of_200_megabytes_is_not_read(tmp_path):
    file = tmp_path / "hw1.ipynb"
    with file.open("wb") as stream:
        stream.truncate(200 * 2**20)
    with pytest.raises(Unreadable, match="200 MB; at most 20 MB"):
        read_bytes(tmp_path, file, 20)
    assert read_bytes(tmp_path, file, 200) == bytes(200 * 2**20)


def test_a_notebook_as_jupyter_writes_it_is_read():
    notebook = new_notebook(cells=[new_code_cell("a\nb")])
    data = json.dumps(from_dict(notebook)).replace('"a\\nb"', '["a\\n", "b"]').encode()
    assert parse(data) == [Piece("code", "a\nb")]
