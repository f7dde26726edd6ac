"""Files that are either whole or not there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Yield a name to write to; it becomes ``file`` at once when the block ends, and nothing is left when it raises."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # The name keeps its ending, which papermill insists on; the process number keeps two writers apart.
    half = file.with_name(f"{UNFINISHED}-{os.getpid()}-{file.name}")
    try:
        yield half
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)


def write_json(content: Any, file: Path) -> None:
    """Write JSON; a reader sees the old content or the new one."""
    with whole(file) as half:
        half.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left under a folder."""
    for file in folder.rglob(f"{UNFINISHED}-*"):
        file.unlink()
