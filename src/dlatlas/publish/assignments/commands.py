"""Commands on assignments."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from dlatlas.publish.layout import Layout

assignments = typer.Typer(help="Make the assignments of a course, and test them.", no_args_is_help=True)

CourseFile = Annotated[Path | None, typer.Option("--course", help="The course file; by default book/course.yml.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands on assignments to the command line."""
    app.add_typer(assignments, name="assignments")
    app.command()(validate)


@assignments.command()
def make(
    course: CourseFile = None,
    to: Annotated[Path | None, typer.Option(help="The course folder; by default _build/course.")] = None,
) -> None:
    """Write the course folder: source, students' versions, a zip for each assignment, the gradebook."""
    from dlatlas.publish.assignments.course import read_course
    from dlatlas.publish.assignments.release import make_course
    from dlatlas.publish.assignments.selection import Exercises

    layout, file = _places(course)
    content = read_course(file)
    folder = to or layout.root / "_build" / "course"
    table = Table("assignment", "exercises", "points by tests", "by hand", "due")
    for released in make_course(content, Exercises(layout), folder):
        tested = sum(part.points * chosen.factor for chosen in released.exercises for part in chosen.exercise.tests)
        total = sum(chosen.points for chosen in released.exercises)
        due = content.assignments[released.name].due
        table.add_row(
            released.name,
            str(len(released.exercises)),
            f"{tested:g}",
            f"{total - tested:g}",
            f"{due:%Y-%m-%d %H:%M} UTC{due:%z}" if due else "open",
        )
    console = Console()
    console.print(table)
    console.print(f"Course folder: {folder}; for students: handout/*.zip", soft_wrap=True, highlight=False)


def _places(course: Path | None) -> "tuple[Layout, Path]":
    from dlatlas.publish.chapters import layout_of

    layout = layout_of("cpu")
    return layout, course or layout.root / "book" / "course.yml"


@assignments.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Assignments or chapters; by default all.")] = None,
    course: CourseFile = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many assignments are checked side by side.")] = 2,
) -> None:
    """Reference solutions score everything, empty ones nothing, and the tests catch every typical mistake."""
    from dlatlas.publish.assignments.check import check_all
    from dlatlas.publish.assignments.course import read_course

    layout, file = _places(course)
    console = Console()
    problems = []
    for report in check_all(names or [], read_course(file), layout, jobs):
        table = Table(title=report.name)
        for column in ("solution", "mutant", "killed by"):
            table.add_column(column, overflow="fold")
        for row in report.rows:
            table.add_row(*row)
        console.print(table)
        console.print(report.summary, highlight=False)
        problems += report.problems
    console.print("\n".join(problems), soft_wrap=True, highlight=False, markup=False)
    if problems:
        raise typer.Exit(1)


def validate(
    notebook: Annotated[Path, typer.Argument(help="Your notebook, such as hw1.ipynb.")],
    cell_seconds: Annotated[float, typer.Option(min=1, help="The longest that one cell may take.")] = 120,
) -> None:
    """Run the tests of an assignment that you can see, and say for each exercise what they found."""
    from dlatlas.publish.assignments.validate import validate as run

    report = run(notebook, cell_seconds)
    Console().print(report.text, soft_wrap=True, highlight=False, markup=False)
    if not report.passed:
        raise typer.Exit(1)
