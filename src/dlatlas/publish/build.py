"""Run the graph of the Snakefile: what changed runs again, a failed chapter stops no other, a killed build resumes."""

import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from snakemake.cli import main as snakemake
from snakemake.logging import logger

from dlatlas.publish.display import showing
from dlatlas.publish.errors import UserError
from dlatlas.publish.execute import give_up
from dlatlas.publish.files import read_json, remove_unfinished
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import load
from dlatlas.publish.records import problems

TARGETS = ("records", "site")
CLUSTERS = Path("workflow", "profiles")


def build(
    layout: Layout, chapters: Sequence[str], *, jobs: int, cluster: str | None, console: Console, target: str = "site"
) -> list[str]:
    """Run the graph up to a target, and return one line for each chapter that failed or owes a claim.

    Parameters
    ----------
    chapters
        Chapters to run when they are not up to date.
    target
        ``records`` or ``site``.
    jobs
        How many chapters run side by side, one thread each.
    cluster
        Folder under ``workflow/profiles`` with the settings of a cluster; ``None`` runs on this machine.
    """
    for chapter in chapters:
        load(chapter, layout)  # A page that is no notebook is refused before the first one runs.
    scheduler = Scheduler(layout, chapters, jobs, cluster)
    with _alone(layout, console):
        _clear_up(layout)
        with showing(map(layout.progress, chapters), console):
            done = scheduler.run(target, *_again(layout, chapters))
        if not done and (cut_off := [chapter for chapter in chapters if not layout.record(chapter).is_file()]):
            for chapter in cut_off:
                give_up(chapter, layout)
            done = scheduler.run(target, "--allowed-rules", *TARGETS)
    if not done:
        raise UserError(f"the {target} could not be made; the reason is above")
    return problems(record for record in read_json(layout.records) if record["chapter"] in chapters)


def _again(layout: Layout, chapters: Sequence[str]) -> list[str]:
    """Options that have the chapters that failed tried again."""
    records = [layout.record(chapter) for chapter in chapters if layout.record(chapter).is_file()]
    failed = [str(file.relative_to(layout.root)) for file in records if read_json(file)["status"] == "failed"]
    return ["--forcerun", *failed] if failed else []


class Scheduler:
    """Snakemake with the settings of this book."""

    def __init__(self, layout: Layout, chapters: Sequence[str], jobs: int, cluster: str | None) -> None:
        # The display says what goes on; Snakemake speaks up when something goes wrong.
        logger.addFilter(lambda record: record.levelno >= logging.WARNING)
        # The rules call `python`; it must be the one that runs this.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._arguments = [
            *("--snakefile", str(layout.root / "Snakefile"), "--directory", str(layout.root)),
            *("--config", f"profile={layout.profile}", f"chapters={','.join(chapters)}"),
            # A killed build leaves Snakemake's own lock; ours ends with the process that holds it.
            *("--nolock", "--rerun-incomplete", "--keep-going", "--show-failed-logs"),
            *(_on_cluster(layout, cluster, jobs) if cluster else _on_this_machine(jobs)),
        ]

    def run(self, *targets_and_options: str) -> bool:
        """Run up to a target; say whether all went well."""
        try:
            snakemake([*targets_and_options, *self._arguments])
        except SystemExit as end:
            return not end.code
        return True


def _on_this_machine(jobs: int) -> list[str]:
    # Chapters of the gpu profile ask for a GPU each, and take turns.
    return ["--cores", str(jobs), "--resources", "gpu=1"]


def _on_cluster(layout: Layout, cluster: str, jobs: int) -> list[str]:
    folder = layout.root / CLUSTERS / cluster
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in folder.parent.iterdir()))
        raise UserError(f"no cluster profile {cluster!r} in {CLUSTERS}; there is {known}")
    return ["--jobs", str(jobs), "--profile", str(folder)]


@contextmanager
def _alone(layout: Layout, console: Console) -> Iterator[None]:
    """Hold the build folder for this process; wait for another build of the same profile to end."""
    layout.build.mkdir(parents=True, exist_ok=True)
    with open(layout.build / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"Waiting for the build of the {layout.profile} profile that is already running ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear_up(layout: Layout) -> None:
    """Remove what a killed build left."""
    remove_unfinished(layout.build)
    shutil.rmtree(layout.build / "progress", ignore_errors=True)
