"""The command line. Commands import what they need when they run: `dlatlas --help` should not wait for torch."""

import errno
import os
import sys
from pathlib import Path
from shutil import rmtree
from typing import Annotated

import typer
from rich.console import Console

from dlatlas.publish.assignments import commands as assignment_commands
from dlatlas.publish.errors import UserError
from dlatlas.publish.grading import commands as grading_commands

app = typer.Typer(
    help="Run, build and test The Deep Learning Atlas.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

# What is wrong with the place that something is written to, and not with the program.
PLACE_ERRORS = (errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS)

Profile = Annotated[str, typer.Option(help="smoke: does it run; cpu: ten seeds, a minute a chapter; gpu: 32 seeds.")]
Chapter = Annotated[str, typer.Argument(metavar="PART/CHAPTER", help="For instance theory/grokking.")]
Jobs = Annotated[int, typer.Option(min=1, help="How many chapters run side by side, one thread each.")]
Cluster = Annotated[str | None, typer.Option(help="Run on a cluster: a folder under workflow/profiles, such as slurm.")]


@app.command()
def build(
    profile: Profile = "cpu",
    jobs: Jobs = CORES,
    cluster: Cluster = None,
) -> None:
    """Run every chapter that is not up to date, and build the site."""
    from dlatlas.publish.chapters import layout_of, written_pages

    layout = layout_of(profile)
    _build(layout, written_pages(layout), jobs, cluster, layout.html / "index.html")


@app.command()
def chapter(chapter: Chapter, profile: Profile = "cpu", cluster: Cluster = None) -> None:
    """Run one chapter if it is not up to date, and build the site."""
    from dlatlas.publish.chapters import layout_of, require_written
    from dlatlas.publish.layout import place

    layout = layout_of(profile)
    _build(layout, [require_written(chapter, layout)], 1, cluster, layout.html / f"{place(chapter)}.html")


def _build(layout, chapters: list[str], jobs: int, cluster: str | None, page: Path) -> None:
    from dlatlas.publish.build import build

    console = Console()
    problems = build(layout, chapters, jobs=jobs, cluster=cluster, console=console)
    console.print(f"Open {page}", soft_wrap=True, highlight=False)
    if problems:
        console.print(f"Problems: {len(problems)}", highlight=False)
        console.print("\n".join(problems), soft_wrap=True, highlight=False, markup=False)
        raise typer.Exit(1)


@app.command()
def execute(
    chapter: Chapter,
    profile: Annotated[str, typer.Option()],
    output_notebook: Annotated[Path, typer.Option()],
    output_record: Annotated[Path, typer.Option()],
) -> None:
    """Run one chapter and write its notebook and its record; the record says whether a cell failed."""
    from dlatlas.publish.chapters import layout_of, require_written
    from dlatlas.publish.display import showing
    from dlatlas.publish.execute import execute_chapter

    layout = layout_of(profile)
    require_written(chapter, layout)
    with showing([layout.progress(chapter)], Console()):
        execute_chapter(chapter, layout, output_notebook, output_record)


@app.command()
def zoo(name: Annotated[str, typer.Argument(help="For instance vit.")], profile: Profile = "cpu") -> None:
    """Train a model of the zoo, if it is not in the cache."""
    from dlatlas.publish.chapters import layout_of
    from dlatlas.publish.display import showing
    from dlatlas.publish.zoo import train

    layout = layout_of(profile)
    with showing([layout.progress(f"zoo/{name}")], Console()):
        train(name, layout)


@app.command()
def records(profile: Profile = "cpu") -> None:
    """Gather the records of the chapters that were run into one file."""
    from dlatlas.publish.chapters import layout_of
    from dlatlas.publish.records import collect

    layout = layout_of(profile)
    collect(layout)
    typer.echo(layout.records)


@app.command()
def site(profile: Profile = "cpu") -> None:
    """Build the site from what was run; run nothing."""
    from dlatlas.publish.site import build_site

    typer.echo(f"Open {build_site(profile)}")


@app.command()
def toc() -> None:
    """Write the table of contents anew, after a chapter or a package was added."""
    from dlatlas.publish.chapters import layout_of
    from dlatlas.publish.toc import write_toc

    write_toc(layout_of("cpu"))


@app.command(name="list")
def list_chapters() -> None:
    """List the chapters that are written."""
    from dlatlas.publish.chapters import layout_of, written_pages
    from dlatlas.registry import load_registry

    for name in written_pages(layout_of("cpu")):
        typer.echo(f"{name}: {load_registry().page(name).title}")


@app.command()
def expected(chapter: Chapter) -> None:
    """Store the outputs that nbval compares, from a run in the smoke profile."""
    from dlatlas.publish.chapters import layout_of, require_written
    from dlatlas.publish.execute import run
    from dlatlas.publish.notebooks import expected_file, store_expected

    layout = layout_of("smoke")
    execution = run(require_written(chapter, layout), layout)
    if execution.failure:
        raise UserError(f"{chapter}: {execution.failure}")
    count = store_expected(execution.notebook, chapter, layout)
    typer.echo(f"{expected_file(chapter, layout)}: outputs of {count} cells")


@app.command()
def nbval() -> None:
    """Write the notebooks that `pytest --nbval-lax` runs, one for each chapter, in the smoke profile."""
    from dlatlas.publish.chapters import layout_of, written_pages
    from dlatlas.publish.notebooks import write_for_nbval

    layout = layout_of("smoke")
    rmtree(layout.build / "nbval", ignore_errors=True)
    for name in written_pages(layout):
        typer.echo(write_for_nbval(name, layout))


assignment_commands.add_to(app)
grading_commands.add_to(app)


def main() -> None:
    """Run the command line; say what a person can set right in one message, without a traceback."""
    try:
        app()
    except Exception as error:
        if not _can_be_set_right(error):
            raise
        Console(stderr=True).print(_said(error), soft_wrap=True, highlight=False, markup=False)
        sys.exit(getattr(error, "status", UserError.status))


def _can_be_set_right(error: Exception) -> bool:
    from dlatlas.data.home import DataUnavailableError
    from dlatlas.registry import RegistryError, UnknownEntry

    if isinstance(error, OSError):
        return error.errno in PLACE_ERRORS
    return isinstance(error, UserError | RegistryError | UnknownEntry | DataUnavailableError)


def _said(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
