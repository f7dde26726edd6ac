"""What a student has handed in: read with suspicion, and put into the notebook that was handed out."""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from dlatlas.publish.grading.confine import MB

_STUDENT = re.compile(r"\w[\w.@+ -]{0,99}")
_MOST_CELLS = 2000
_PICTURES = ("image/png", "image/jpeg")
_CELL_KINDS = ("code", "markdown", "raw")


class Unreadable(Exception):
    """A submission that cannot be graded; the message says why."""


@dataclass(frozen=True)
class Piece:
    """A cell of the notebook that is graded: one that was handed out, or one that the student has added."""

    cell_type: str
    source: str
    grade_id: str | None = None
    attachments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submission:
    """Cells in the order in which they run, and what was found to be different from the hand-out."""

    pieces: list[Piece]
    remarks: list[str]


def student_folders(submitted: Path) -> Iterator[tuple[str, Path]]:
    """Students who have handed something in, by name."""
    if submitted.is_dir():
        for folder in sorted(submitted.iterdir()):
            if not folder.name.startswith(".") and (folder.is_symlink() or folder.is_dir()):
                yield folder.name, folder


def require_name(student: str) -> None:
    """Refuse a name that could mean something else to a file system, a page or a spreadsheet.

    Raises
    ------
    Unreadable
        When the name is such a one.
    """
    if not _STUDENT.fullmatch(student) or ".." in student or student != student.strip():
        raise Unreadable("the name of the folder is not that of a student: letters, digits and . _ - + @ are allowed")


def read_bytes(course: Path, file: Path, megabytes: float) -> bytes:
    """Content of a file that a student has handed in.

    Raises
    ------
    Unreadable
        When it is not there, too large, not a plain file, or reached through a symbolic link.
    """
    for part in [file, *file.parents]:
        if part == course:
            break
        if part.is_symlink():
            raise Unreadable(f"{part.relative_to(course)} is a symbolic link")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Unreadable(f"{file.name} was not handed in") from error
    except OSError as error:
        raise Unreadable(f"{file.name} cannot be read: {error.strerror}") from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable(f"{file.name} is not a file")
        if about.st_size > megabytes * MB:
            raise Unreadable(f"{file.name} has {about.st_size / MB:.0f} MB; at most {megabytes:g} MB are read")
        with open(descriptor, "rb", closefd=False) as stream:
            return stream.read(about.st_size)
    finally:
        os.close(descriptor)


def parse(data: bytes) -> list[Piece]:
    """Cells of a notebook, without outputs and without any metadata but their names.

    Raises
    ------
    Unreadable
        When this is not a notebook.
    """
    try:
        cells = json.loads(data)["cells"]
        if not isinstance(cells, list) or len(cells) > _MOST_CELLS:
            raise Unreadable(f"this is not a notebook of at most {_MOST_CELLS} cells")
        return [_piece(cell) for cell in cells]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(f"this is not a Jupyter notebook ({type(error).__name__})") from error


def _piece(cell: dict[str, Any]) -> Piece:
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)
    if cell["cell_type"] not in _CELL_KINDS:
        raise ValueError("a cell of an unknown kind")
    # A lone half of a surrogate pair is legal JSON, and no text.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return Piece(cell["cell_type"], text, _grade_id(cell), _pictures(cell))


def _grade_id(cell: dict[str, Any]) -> str | None:
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = grading.get("grade_id") if isinstance(grading, dict) else None
    return grade_id if isinstance(grade_id, str) else None


def _pictures(cell: dict[str, Any]) -> dict[str, Any]:
    """Pictures that were pasted into a text."""
    attachments = cell.get("attachments")
    found = {}
    for name, formats in attachments.items() if isinstance(attachments, dict) else ():
        known = formats if isinstance(formats, dict) else {}
        kept = {kind: known[kind] for kind in _PICTURES if isinstance(known.get(kind), str)}
        found |= {name: kept} if kept else {}
    return found


def merge(pieces: list[Piece], release: NotebookNode) -> Submission:
    """Put what a student has written into the notebook that was handed out.

    Cells that were handed out keep their order, and all but the solutions keep their text; metadata are never the
    student's. Cells that the student has added follow the cell after which they stand.
    """
    handed_out = {cell.metadata.nbgrader["grade_id"]: cell for cell in release.cells if "nbgrader" in cell.metadata}
    remarks: list[str] = []
    groups: dict[str | None, list[Piece]] = {None: []}
    current = None
    last = {piece.grade_id: position for position, piece in enumerate(pieces)}
    for position, piece in enumerate(pieces):
        known = piece.grade_id in handed_out
        if known and last[piece.grade_id] == position:
            current = piece.grade_id
            groups[current] = [piece]
        else:
            remarks += [f"{piece.grade_id} comes more than once; the last one counts"] if known else []
            groups[current].append(Piece(piece.cell_type, piece.source, attachments=piece.attachments))
    merged = list(groups[None])
    for grade_id, cell in handed_out.items():
        found, *added = groups.get(grade_id, [None])
        merged += [_restored(found, cell, grade_id, remarks), *added]
    return Submission(merged, remarks)


def _restored(found: Piece | None, cell: NotebookNode, grade_id: str, remarks: list[str]) -> Piece:
    is_solution = cell.metadata.nbgrader.get("solution")
    if found is None:
        remarks.append(f"{grade_id} is missing" + ("" if is_solution else "; it was put back"))
        # The untouched cell would replace what the student may have written in another one.
        is_answer = is_solution and cell.cell_type == "code"
        return Piece(cell.cell_type, "" if is_answer else cell.source, grade_id)
    if is_solution:
        return Piece(cell.cell_type, found.source, grade_id, found.attachments)
    if found.source.strip() != cell.source.strip():
        remarks.append(f"{grade_id} was changed; it was put back as it was handed out")
    return Piece(cell.cell_type, cell.source, grade_id)
