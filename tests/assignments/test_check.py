"""The check of assignments: it passes on those of the book, and it can fail."""

from pathlib import Path
from time import monotonic

import pytest

from dlatlas.publish.assignments.check import SURVIVED, check, check_all
from dlatlas.publish.assignments.course import read_course
from dlatlas.publish.assignments.mutants import Mutant, mutants_of
from dlatlas.publish.assignments.selection import Exercises
from dlatlas.publish.chapters import layout_of
from dlatlas.publish.errors import UserError
from tests.assignments.sample import CHAPTER, MUTANTS, PAGE, sample_book

COURSE = read_course(Path(__file__).parents[2] / "book" / "course.yml")
HIDDEN = "assert quarter(3) == Fraction(3, 4)"


def checked(tmp_path: Path, page: str = PAGE, mutants: str = MUTANTS):
    layout = sample_book(tmp_path, page, mutants)
    return check("hw1", Exercises(layout).of_chapter(CHAPTER), {CHAPTER: mutants_of(CHAPTER, layout)})


def test_report_says_which_test_kills_which_mutant(tmp_path):
    found = checked(tmp_path)
    assert found.problems == []
    assert found.rows == [("quarter", "once only", "quarter-visible"), ("quarter", "rounded", "quarter-hidden")]


def test_surviving_mutant_is_a_problem(tmp_path):
    found = checked(tmp_path, PAGE.replace(HIDDEN, "assert quarter(0) == 0"))
    assert found.rows[1] == ("quarter", "rounded", SURVIVED)
    assert found.problems == ["hw1: quarter: the mutant 'rounded' passes all tests"]


def test_reference_solution_that_fails_is_a_problem(tmp_path):
    found = checked(tmp_path, PAGE.replace("Fraction(3, 4)\n### END", "Fraction(3, 5)\n### END"))
    (problem,) = found.problems
    assert problem.startswith("theory/grokking: ex-quarter: the reference solution fails in 'quarter-hidden'")


def test_test_that_passes_without_a_solution_is_a_problem(tmp_path):
    found = checked(
        tmp_path, PAGE.replace(HIDDEN, "assert half(3) == Fraction(3, 2)"), MUTANTS.split("  - name: rou")[0]
    )
    assert found.problems == ["theory/grokking: ex-quarter: the test 'quarter-hidden' passes without a solution"]


def test_solution_without_mutants_is_a_problem(tmp_path):
    assert checked(tmp_path, mutants="{}").problems == ["theory/grokking: no mutants for the solution 'quarter'"]


def test_mutant_that_does_not_fit_is_a_problem(tmp_path):
    (problem,) = checked(tmp_path, mutants=MUTANTS.replace("half(half(x))", "third(x)")).problems
    assert "the mutant 'once only' replaces 'third(x)', which the reference solution holds 0 times" in problem


def test_mutant_is_the_solution_with_one_text_exchanged():
    assert Mutant(name="m", replace="+", by="-").applied_to("a + b") == "a - b"
    with pytest.raises(UserError, match="2 times"):
        Mutant(name="m", replace="a", by="b").applied_to("a a")


@pytest.mark.parametrize("text", ["quarter: {}", "quarter: [{name: a}]", "quarter: [", "- a"])
def test_mutant_file_that_is_wrong_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"grokking\.yml"):
        checked(tmp_path, mutants=text)


def test_unknown_name_is_refused():
    with pytest.raises(UserError, match="'hw99' is no assignment"):
        list(check_all(["hw99"], COURSE, layout_of("cpu"), 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSE.assignments)
def test_assignments_of_the_book_catch_every_mutant(name):
    begin = monotonic()
    (found,) = check_all([name], COURSE, layout_of("cpu"), 1)
    assert found.problems == []
    per_solution = [sum(row[0] == grade_id for row in found.rows) for grade_id in {row[0] for row in found.rows}]
    assert len(per_solution) >= 3
    assert min(per_solution) >= 4
    assert monotonic() - begin < 240
