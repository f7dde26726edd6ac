"""How far a run is: written by the process that runs a chapter, read by the one that shows it."""

import json
from pathlib import Path
from typing import Any

from dlatlas.publish.files import read_json, write_json


class Report:
    """What a run says about itself: the file of the cells, and beside it the file of the loop that a cell is in."""

    def __init__(self, file: Path, chapter: str, cells: int) -> None:
        self.cell = 0
        self.loop_file = loop_file(file)
        self._file = file
        self._about = {"chapter": chapter, "cells": cells}
        self._write("running")

    def next_cell(self) -> None:
        """Say that the next code cell begins."""
        self.cell += 1
        self._write("running")

    def end(self, *, failed: bool, seconds: float) -> None:
        """Say that the run is over."""
        self._write("failed" if failed else "finished", seconds=round(seconds, 1))

    def _write(self, state: str, **more: Any) -> None:
        self.loop_file.unlink(missing_ok=True)
        write_json({**self._about, "cell": self.cell, "state": state, **more}, self._file)


def loop_file(file: Path) -> Path:
    """File in which a training loop says how far it is: label, done, total."""
    return file.with_suffix(".loop")


def read_reports(files: list[Path]) -> list[dict[str, Any]]:
    """Reports of the runs that have begun, each with what its loop says."""
    return [{**read_json(file), "loop": _loop(file)} for file in files if file.is_file()]


def _loop(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(loop_file(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
