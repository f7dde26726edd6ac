"""The checksum that nbgrader writes into a graded cell, without nbgrader, which students need not install."""

import hashlib
from typing import Any


def checksum(cell: dict[str, Any]) -> str:
    """Checksum of a cell of a notebook file (schema 3 of nbgrader)."""
    grading = cell["metadata"]["nbgrader"]
    grade, solution = bool(grading.get("grade")), bool(grading.get("solution"))
    locked = not solution and (grade or bool(grading.get("locked")))
    pieces = [source_of(cell), cell["cell_type"], *map(str, (grade, solution, locked)), grading["grade_id"]]
    if grade:
        pieces.append(str(float(grading["points"])))
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece.encode("utf-8"))
    return digest.hexdigest()


def source_of(cell: dict[str, Any]) -> str:
    """Source of a cell, which notebook files may store as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
