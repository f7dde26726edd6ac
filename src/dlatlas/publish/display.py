"""Show in the terminal how far the chapters are: bars for a person, a line now and then for a log."""

import math
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dlatlas.publish.report import read_reports

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 10.0


class Display(Protocol):
    """Something that shows reports."""

    def show(self, report: dict[str, Any]) -> None:
        """Show a report that differs from the last one of its chapter."""


class Lines:
    """A line when a chapter begins and ends, and one now and then on the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, float] = {}

    def show(self, report: dict[str, Any]) -> None:
        """Print a line, unless the chapter had one a moment ago."""
        now, chapter = time.monotonic(), report["chapter"]
        waited = now - self._last.get(chapter, -math.inf)
        if report["state"] != "running" or waited >= SECONDS_BETWEEN_LINES:
            self._last[chapter] = now
            self._console.print(f"{chapter}: {describe(report)}", soft_wrap=True, highlight=False, markup=False)


class Bars:
    """A bar for every chapter that runs; a line for every one that has ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, report: dict[str, Any]) -> None:
        """Move the bar of the chapter, or replace it by its last line."""
        chapter = report["chapter"]
        if report["state"] == "running":
            if chapter not in self._tasks:
                self._tasks[chapter] = self._progress.add_task(chapter, total=report["cells"], state="")
            self._progress.update(self._tasks[chapter], completed=report["cell"], state=describe(report))
        else:
            self._progress.console.print(f"{chapter}: {describe(report)}", highlight=False, markup=False)
            if chapter in self._tasks:
                self._progress.remove_task(self._tasks.pop(chapter))


def describe(report: dict[str, Any]) -> str:
    """Say in a few words how far a chapter is."""
    if report["state"] != "running":
        where = f" in cell {report['cell']}" if report["state"] == "failed" else ""
        return f"{report['state']}{where} after {report['seconds']:.0f} s"
    if not report["cell"]:
        return "starting"
    place = f"cell {report['cell']} of {report['cells']}"
    loop = report["loop"]
    return f"{place}, {loop['label'] or 'step'} {loop['done']} of {loop['total']}" if loop else place


@contextmanager
def showing(reports: Iterable[Path], console: Console) -> Iterator[None]:
    """Show the reports in these files, once they are there, while the block runs."""
    with _display(console) as display:
        follower = _Follower(list(reports), display)
        thread = threading.Thread(target=follower.follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            follower.stop.set()
            thread.join()
            follower.look()


@contextmanager
def _display(console: Console) -> Iterator[Display]:
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
        yield Bars(progress)


class _Follower:
    """Look at the reports every moment and pass on the new ones."""

    def __init__(self, files: list[Path], display: Display) -> None:
        self.stop = threading.Event()
        self._files = files
        self._display = display
        self._seen: dict[str, dict[str, Any]] = {}

    def follow(self) -> None:
        while not self.stop.wait(SECONDS_BETWEEN_LOOKS):
            self.look()

    def look(self) -> None:
        for report in read_reports(self._files):
            if self._seen.get(report["chapter"]) != report:
                self._seen[report["chapter"]] = report
                self._display.show(report)
