"""The commands on assignments, as an instructor and a student run them."""

import json
from pathlib import Path
from shutil import copy, copytree

import pytest
from typer.testing import CliRunner

from dlatlas.publish.cli import app
from dlatlas.publish.errors import UserError
from tests.assignments.sample import CHAPTER, COURSE, MUTANTS, PAGE, sample_book

BOOK = Path(__file__).parents[2] / "book"


@pytest.fixture
def book(tmp_path, monkeypatch) -> Path:
    """A repository with the registry of the book, the sample chapter and its course."""
    sample_book(tmp_path)
    copytree(BOOK / "papers", tmp_path / "book" / "papers")
    copy(BOOK / "contents.yml", tmp_path / "book")
    (tmp_path / "book" / "course.yml").write_text(COURSE)
    monkeypatch.setenv("DLATLAS_BOOK", str(tmp_path / "book"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    finished = CliRunner().invoke(app, arguments)
    if finished.exception and not isinstance(finished.exception, SystemExit):
        raise finished.exception
    return finished.exit_code, finished.stdout


def test_make_then_solve_then_validate(book):
    status, printed = run("assignments", "make")
    assert status == 0
    assert "hw1" in printed
    folder = book / "_build" / "course"
    assert f"Course folder: {folder}" in printed
    status, printed = run("validate", str(folder / "release" / "hw1" / "hw1.ipynb"))
    assert status == 1
    assert "FAILED  Quarters\n    not written yet\n    `quarter-why`: not written yet" in printed
    status, printed = run("validate", str(folder / "source" / "hw1" / "hw1.ipynb"))
    assert (status, printed.split()[0]) == (0, "passed")


def test_check_prints_mutants_and_their_killers(book):
    status, printed = run("assignments", "check", "--jobs", "1")
    assert status == 0
    assert "once only" in printed
    assert "quarter-visible" in printed
    assert "hw1: 2 of 2 mutants killed, 0 problems" in printed


def test_check_fails_on_a_survivor(book):
    mutants = MUTANTS + "  - name: the same\n    replace: half(half(x))\n    by: half(half(x)) + 0\n"
    sample_book(book, PAGE, mutants)
    status, printed = run("assignments", "check", CHAPTER)
    assert status == 1
    assert "the mutant 'the same' passes all tests" in printed


def test_validate_says_when_the_list_of_exercises_was_changed(tmp_path):
    file = tmp_path / "hw1.ipynb"
    file.write_text(json.dumps({"cells": [], "metadata": {"dlatlas": [1]}}))
    with pytest.raises(UserError, match="not of which exercises"):
        run("validate", str(file))
