"""The course file: what it says, and what is said when it is wrong."""

from datetime import timedelta
from pathlib import Path

import pytest

from dlatlas.publish.assignments.course import read_course
from dlatlas.publish.errors import UserError
from tests.assignments.sample import COURSE, sample_course


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        sample_course(tmp_path, text)
    return str(caught.value).replace(str(tmp_path / "course.yml"), "course.yml").splitlines()


def test_course_is_read(tmp_path):
    course = sample_course(tmp_path)
    assignment = course.assignments["hw1"]
    assert (course.name, course.package) == ("Halves", "dlatlas==1.2")
    assert assignment.exercises == ("ex-quarter",)
    assert assignment.points == {"ex-quarter": 20}
    assert assignment.due.utcoffset() == timedelta(hours=2)


def test_course_of_the_book_is_in_order():
    course = read_course(Path(__file__).parents[2] / "book" / "course.yml")
    assert {"hw1", "hw2", "hw3"} <= course.assignments.keys()
    for assignment in course.assignments.values():
        assert 60 <= assignment.minutes <= 120


def test_yaml_dates_keep_their_time_zone(tmp_path):
    course = sample_course(tmp_path, COURSE.replace("2027-10-18T23:59+02:00", "2027-10-18 23:59:00 +02:00"))
    assert course.assignments["hw1"].due.utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize("date", ["2027-10-18 23:59:00", "2027-10-18T23:59", "soon", "2027-10-18"])
def test_date_without_a_time_zone_is_refused(tmp_path, date):
    (problem,) = problems(tmp_path, COURSE.replace("2027-10-18T23:59+02:00", date))
    assert problem.startswith("course.yml:6: assignments.hw1.due: expected a date with a time zone")


def test_several_problems_come_with_file_line_and_place(tmp_path):
    text = COURSE.replace("title: Quarters", "tittle: Quarters").replace("20}", "-1}")
    lines = problems(tmp_path, text)
    assert lines == [
        "course.yml:4: assignments.hw1.title: Field required",
        "course.yml:8: assignments.hw1.points.ex-quarter: Input should be greater than 0 (got -1)",
        "course.yml:5: assignments.hw1.tittle: Extra inputs are not permitted (got 'Quarters')",
    ]


def test_assignment_given_twice_is_refused(tmp_path):
    lines = problems(tmp_path, COURSE + "  hw1: {title: Again, exercises: [ex-open]}\n")
    assert lines == ["course.yml:9: assignments.hw1: given twice"]


def test_empty_assignment_is_refused(tmp_path):
    (problem,) = problems(tmp_path, COURSE.replace("    exercises: [ex-quarter]\n", ""))
    assert "expected `chapters` or `exercises`" in problem


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: [", "course.yml:1: not valid YAML"),
        ("", "course.yml:1: the whole file:"),
        ("name: A\nassignments: {}", "course.yml:2: assignments:"),
        ("name: A\nassignments: {'../x': {title: T, chapters: [a]}}", "course.yml:2: assignments.../x"),
    ],
)
def test_file_that_is_no_course_is_refused(tmp_path, text, reason):
    assert problems(tmp_path, text)[0].startswith(reason)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.yml: cannot be read"):
        read_course(tmp_path / "nowhere.yml")
