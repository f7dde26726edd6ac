"""The command that grades."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from dlatlas.publish.grading.results import Result

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_to(app: typer.Typer) -> None:
    """Add the command on grading to the command line."""
    app.command()(grade)


def grade(
    course_folder: Annotated[Path, typer.Argument(help="A course folder of nbgrader.", file_okay=False, exists=True)],
    assignment: Annotated[str, typer.Argument(help="For instance losses.")],
    jobs: Annotated[int, typer.Option(min=1, help="How many submissions are graded side by side.")] = CORES,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Run the students' code without a sandbox.")] = False,
) -> None:
    """Grade what students have handed in, in a sandbox; what is graded already stays as it is."""
    from dlatlas.publish.grading.grade import Grading

    console = Console()
    grading = Grading(course_folder, assignment, unsafe=unsafe)
    waiting = grading.waiting()
    start = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task("grading", total=len(waiting))
        try:
            for result in grading.run(waiting, jobs):
                progress.advance(task)
                _say(result, progress.console)
        except KeyboardInterrupt:
            console.print("Stopped. What is graded is kept; the same command goes on with the rest.")
            # The sandboxes end with this process; waiting for them would only take time.
            os._exit(130)
    for refused in grading.refused:
        _say(refused, console)
    grading.write_pages()
    if waiting:
        seconds = time.monotonic() - start
        console.print(f"{len(waiting)} graded in {seconds:.0f} s, {seconds / len(waiting):.1f} s each", highlight=False)
    else:
        console.print("Nothing new to grade.")
    console.print(f"Grades: {grading.table}", soft_wrap=True, highlight=False)
    if grading.failures:
        console.print("Not graded, and tried again next time: " + ", ".join(grading.failures), highlight=False)
        raise typer.Exit(1)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _say(result: "Result", console: Console) -> None:
    if result.outcome != "graded":
        console.print(f"{result.student}: {result.outcome}", soft_wrap=True, markup=False, highlight=False)
