"""How far a loop is: a bar for a person, a small file for the program that executes the book."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

PROGRESS_FILE = "DLATLAS_PROGRESS"
SECONDS_BETWEEN_REPORTS = 0.5


def track(total: int, label: str) -> Iterator[int]:
    """Yield 0, ..., ``total`` - 1 and report on the way."""
    if PROGRESS_FILE in os.environ:
        yield from _reported(total, label, Path(os.environ[PROGRESS_FILE]))
    else:
        yield from tqdm(range(total), desc=label, leave=False)


def _reported(total: int, label: str, file: Path) -> Iterator[int]:
    last = 0.0
    for done in range(total):
        if time.monotonic() - last > SECONDS_BETWEEN_REPORTS:
            _write(file, {"label": label, "done": done, "total": total})
            last = time.monotonic()
        yield done


def _write(file: Path, report: dict) -> None:
    half = file.with_name(f"{file.name}.{os.getpid()}")
    half.write_text(json.dumps(report))
    half.replace(file)
