"""Runs a student's notebook in a process of its own, cell by cell, and survives cells that never end."""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

DONE, NEVER_ENDED, ENDED = "done", "never ended", "ended Python"
_POLL = 0.05


def execute(file: Path, notebook: dict[str, Any], cell_seconds: float) -> dict[int, dict[str, Any]]:
    """Outcome of every code cell by its position: a state, and an error or a message.

    A cell that takes too long, or that ends Python, is left out and the notebook run again, so that one exercise does
    not hide the others.
    """
    lost: dict[int, dict[str, Any]] = {}
    with TemporaryDirectory() as folder:
        draft = Path(folder, "notebook.json")
        draft.write_text(json.dumps(notebook), encoding="utf-8")
        while True:
            outcomes, stuck = _run(draft, file.resolve().parent, set(lost), cell_seconds)
            if stuck is None:
                return outcomes | lost
            lost[stuck["cell"]] = stuck


def _run(
    draft: Path, folder: Path, skipped: set[int], cell_seconds: float
) -> tuple[dict[int, dict[str, Any]], dict[str, Any] | None]:
    """Run all cells but some; give the outcomes, and the cell that had to be given up, if there is one."""
    report = draft.with_name("report")
    report.write_text("")
    arguments = [str(draft), str(report), ",".join(map(str, sorted(skipped)))]
    process = subprocess.Popen(
        [sys.executable, "-m", "dlatlas.publish.assignments.runner", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ended = _wait(process, report, cell_seconds)
    finally:
        process.kill()
        process.wait()
    lines = _lines(report)
    outcomes = {line["cell"]: line for line in lines if line["state"] == DONE}
    if not lines or lines[-1]["state"] == DONE:
        return outcomes, None
    state, message = (
        (ENDED, "the cell ended Python (it ran out of memory, or it called something like os._exit)")
        if ended
        else (NEVER_ENDED, f"the cell did not end within {cell_seconds:g} seconds: look for a loop that never stops")
    )
    return outcomes, {"cell": lines[-1]["cell"], "state": state, "message": message}


def _wait(process: subprocess.Popen, report: Path, cell_seconds: float) -> bool:
    """Wait until the process ends (true) or one cell takes too long (false)."""
    size, since = 0, time.monotonic()
    while process.poll() is None:
        if report.stat().st_size != size:
            size, since = report.stat().st_size, time.monotonic()
        if time.monotonic() - since > cell_seconds and size:
            return False
        time.sleep(_POLL)
    return True


def _lines(report: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
