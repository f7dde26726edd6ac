"""Seconds for two chapters, one after the other and side by side, and for the site without running a chapter."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.publish.project import book_project, tiny_project

# About ten seconds of one core, in one thread as the workflow sets it.
WORK = """import numpy as np
a = np.random.default_rng(0).normal(size=(1500, 1500))
for _ in range(150):
    a = np.tanh(a @ a)
"""
GOAL_SITE = 60


def seconds(action: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def chapters(folder: Path, jobs: int) -> float:
    """Time to run two chapters in a new project."""
    project = tiny_project(folder, {"alpha": [WORK], "beta": [WORK]})
    return seconds(lambda: project.build(jobs))


def site(folder: Path) -> float:
    """Time to build the site of the whole library and registry from nothing."""
    project = book_project(folder, {"grokking": ["1"]})
    return seconds(lambda: project.command("site"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        apart, together = (chapters(Path(folder, f"{jobs}"), jobs) for jobs in (1, 2))
        table = Table("what", "seconds", "goal")
        table.add_row("two chapters, one after the other", f"{apart:.1f}", "")
        table.add_row("two chapters, side by side", f"{together:.1f}", f"less: {apart / together:.2f} times as fast")
        table.add_row("site without running a chapter", f"{site(Path(folder, 'site')):.1f}", f"{GOAL_SITE}")
        Console().print(table)


if __name__ == "__main__":
    main()
