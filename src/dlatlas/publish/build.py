"""Run the graph of the Snakefile: what changed runs again, a failed chapter stops no other, a killed build resumes."""

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console

from dlatlas.publish import zoo
from dlatlas.publish.display import showing
from dlatlas.publish.errors import UserError
from dlatlas.publish.execute import give_up
from dlatlas.publish.files import read_json, remove_unfinished
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import load
from dlatlas.publish.records import problems
from dlatlas.publish.scheduler import Scheduler

TARGETS = ("records", "site")
LEAST_SPACE = 2**20  # bytes


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
        with showing(map(layout.progress, [*zoo.runs(chapters, layout), *chapters]), console):
            done = scheduler.run(target, *_again(layout, chapters))
        if cut_off := _cut_off(chapters, scheduler.failed, layout):
            for chapter, reason in cut_off.items():
                give_up(chapter, layout, reason)
            done = scheduler.run(target, "--allowed-rules", *TARGETS)
    if not done:
        raise UserError(_complaint(target, scheduler.failed, layout))
    return problems(record for record in read_json(layout.records) if record["chapter"] in chapters)


def _again(layout: Layout, chapters: Sequence[str]) -> list[str]:
    """Options that have the chapters that failed tried again."""
    records = [layout.record(chapter) for chapter in chapters if layout.record(chapter).is_file()]
    failed = [_name(file, layout) for file in records if read_json(file)["status"] == "failed"]
    return ["--forcerun", *failed] if failed else []


def _cut_off(chapters: Sequence[str], failed: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """Chapters whose own job, or that of a model they load, ended without a result; and the reason."""
    needs = {chapter: (layout.record(chapter), *zoo.made_files(chapter, layout)) for chapter in chapters}
    names = {chapter: [_name(file, layout) for file in files] for chapter, files in needs.items()}
    return {chapter: failed[file] for chapter, files in names.items() for file in files if file in failed}


def _complaint(target: str, failed: Mapping[str, str], layout: Layout) -> str:
    """What the step printed that failed after the chapters, or where to look."""
    if shutil.disk_usage(layout.build).free < LEAST_SPACE:  # nothing could be printed into the logs
        return f"no space left for {layout.build}"
    for step, output in (("records", layout.records), ("site", layout.html / "index.html")):
        if reason := failed.get(_name(output, layout)):
            return layout.log(step).read_text(encoding="utf-8").strip() or reason
    return f"the {target} could not be made; the reason is above"


def _name(file: Path, layout: Layout) -> str:
    """Name of a file in the Snakefile."""
    return str(file.relative_to(layout.root))


@contextmanager
def _alone(layout: Layout, console: Console) -> Iterator[None]:
    """Hold the build folder for this process; wait for another build of the same profile to end."""
    layout.build.mkdir(parents=True, exist_ok=True)
    with open(layout.build / ".lock", "w") as lock:
        if not _acquired(lock):
            console.print(f"Waiting for the build of the {layout.profile} profile that is already running ...")
            while not _acquired(lock):  # a call that blocks would miss an interrupt that comes just before it
                time.sleep(0.2)
        yield


def _acquired(lock: IO[str]) -> bool:
    """Try to lock a file, without waiting."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_up(layout: Layout) -> None:
    """Remove what a killed build left."""
    remove_unfinished(layout.build)
    shutil.rmtree(layout.build / "progress", ignore_errors=True)
