"""Exercises cut out of a chapter, and their text as Jupyter shows it."""

import pytest

from dlatlas.publish.assignments.exercises import graded_exercises
from dlatlas.publish.assignments.markdown import context, plain
from dlatlas.publish.assignments.references import References
from dlatlas.publish.assignments.selection import Exercises
from dlatlas.publish.directives import segments
from dlatlas.publish.errors import UserError
from dlatlas.publish.notebooks import load
from tests.assignments.sample import CHAPTER, COURSE, PAGE, sample_book, sample_course


@pytest.fixture
def references(tmp_path) -> References:
    layout = sample_book(tmp_path)
    return References(CHAPTER, load(CHAPTER, layout).cells)


def test_exercise_has_its_graded_and_released_cells(tmp_path):
    (exercise,) = graded_exercises(CHAPTER, sample_book(tmp_path))
    assert (exercise.label, exercise.title, exercise.points) == ("ex-quarter", "Quarters", 10)
    ids = [part.grade_id for part in exercise.parts]
    assert ids == ["quarter", "quarter-visible", "quarter-hidden", "quarter-why", ""]
    assert exercise.parts[3].cell.source == "Half of a half, by {eq}`eq-half`."
    assert [part.grade_id for part in exercise.tests] == ["quarter-visible", "quarter-hidden"]


def test_set_up_leaves_the_experiments_out(tmp_path):
    (chosen,) = Exercises(sample_book(tmp_path)).of_chapter(CHAPTER)
    assert chosen.set_up == "# What every exercise needs.\ntwo = Fraction(2)\n\n\ndef half(x):\n    return x / two"
    imports = [statement.source for statement in chosen.needed if statement.is_import]
    assert imports == ["import math", "from fractions import Fraction"]


def test_roles_become_text(references):
    text = "By {eq}`eq-half` of {cite:t}`grokking-lazy-to-rich`; {numref}`fig-halves`; "
    text += "{ref}`here <ex-open>`, {ref}`ex-open`."
    shown = plain(text, references)
    assert shown.startswith("By (1) of Kumar et al. (20")
    assert shown.endswith("the chapter's figure “Halves”; here, “Not graded”.")


def test_labelled_equation_keeps_its_number(references):
    assert plain("$$\nx\n$$ (eq-half)", references) == "$$\nh = x / 2 .\n\\tag{1}\n$$"


def test_context_is_the_equation_with_its_paragraph(references):
    lead = "The half $h$ of a number $x$ is\n\n$$\nh = x / 2 .\n\\tag{1}\n$$"
    assert context("See {eq}`eq-half` and {eq}`eq-half`.", references) == lead
    assert context("$$\nx\n$$ (eq-half)\n\nSee {eq}`eq-half`.", references) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{eq}`eq-none`", "refers to the equation 'eq-none'"),
        ("{numref}`fig-none`", "refers to the figure 'fig-none'"),
        ("{ref}`none`", "refers to the section or exercise 'none'"),
        ("{cite:t}`no-paper`", "cites 'no-paper'"),
        ("{func}`f`", "holds the role '{func}`f`'"),
        ("```{note}\nA\n```", "holds the directive 'note'"),
    ],
)
def test_what_jupyter_cannot_show_is_refused(references, text, reason):
    with pytest.raises(UserError, match="theory/grokking: an exercise ") as caught:
        plain(text, references)
    assert reason in str(caught.value)


def test_longer_fences_hold_shorter_ones():
    text = "Before.\n\n````{exercise} A\n:label: ex-a\n\n```python\nx\n```\n````\n\nAfter."
    before, exercise, after = segments(text)
    assert (before.text, after.text) == ("Before.", "After.")
    assert (exercise.argument, exercise.options) == ("A", {"label": "ex-a"})
    assert exercise.text == "```python\nx\n```"


def test_exercise_in_a_graded_cell_is_refused(tmp_path):
    page = PAGE.replace("Half of a half, by", "```{exercise} Inside\n:label: ex-in\n```\n\nHalf of a half, by")
    with pytest.raises(UserError, match="holds the exercise ex-in"):
        graded_exercises(CHAPTER, sample_book(tmp_path, page))


def test_exercise_without_a_label_is_refused(tmp_path):
    with pytest.raises(UserError, match="the exercise 'Quarters' has no label"):
        graded_exercises(CHAPTER, sample_book(tmp_path, PAGE.replace(":label: ex-quarter\n", "")))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("exercises: [ex-quarter]", "exercises: [ex-quatre]", "no exercise 'ex-quatre'; closest: ex-quarter"),
        (
            "exercises: [ex-quarter]",
            "exercises: [ex-open]",
            "the exercise 'ex-open' is not graded; there are ex-quarter",
        ),
        ("exercises: [ex-quarter]", "chapters: [theory/grok]", "no chapter 'theory/grok'; closest: theory/grokking"),
        ("{ex-quarter: 20}", "{ex-half: 20}", "the exercise 'ex-half' is not in this assignment"),
        ("[ex-quarter]", "[ex-quarter, ex-quarter]", "graded cells that come twice: quarter, quarter-visible"),
    ],
)
def test_course_that_does_not_fit_the_book_is_refused(tmp_path, old, new, reason):
    course = sample_course(tmp_path, COURSE.replace(old, new))
    with pytest.raises(UserError) as caught:
        Exercises(sample_book(tmp_path)).chosen("hw1", course)
    assert str(caught.value).startswith("assignments.hw1")
    assert reason in str(caught.value)
