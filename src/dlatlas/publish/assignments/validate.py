"""What students run before they hand in: the visible tests of their notebook, and whether the notebook is whole."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlatlas.publish.assignments.checksum import checksum, source_of
from dlatlas.publish.assignments.execution import ENDED, NEVER_ENDED, execute
from dlatlas.publish.errors import UserError

STUB, UNWRITTEN = "NotImplementedError", "YOUR ANSWER HERE"
PASSED, FAILED, UNFINISHED, BY_HAND = "passed", "FAILED", "NOT FINISHED", "graded by hand"
_LARGEST = 50_000_000


@dataclass(frozen=True)
class Verdict:
    """How an exercise stands."""

    title: str
    outcome: str
    messages: tuple[str, ...]

    @property
    def text(self) -> str:
        """Title, outcome and what to look at."""
        body = "".join("\n    " + message.replace("\n", "\n    ") for message in self.messages)
        return f"{self.outcome:>15}  {self.title}{body}"


@dataclass(frozen=True)
class Report:
    """How a notebook stands."""

    warnings: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether all is there and no visible test fails."""
        return not self.warnings and all(verdict.outcome in (PASSED, BY_HAND) for verdict in self.verdicts)

    @property
    def text(self) -> str:
        """What the student reads."""
        ending = (
            "Everything that you can see passes; grading runs more tests."
            if self.passed
            else "Something is missing or wrong: see above."
        )
        return "\n".join([*self.warnings, *(verdict.text for verdict in self.verdicts), ending])


def validate(file: Path, cell_seconds: float) -> Report:
    """Run the visible tests of a student's notebook.

    Raises
    ------
    UserError
        When the file is no notebook of an assignment.
    """
    notebook = read_notebook(file)
    manifest = notebook["metadata"].get("dlatlas") or _manifest_of_cells(file, notebook)
    if not isinstance(manifest, dict) or not {"cells", "exercises"} <= manifest.keys():
        raise UserError(
            f"{file} says of itself that it is an assignment, but not of which exercises: its metadata changed"
        )
    warnings = tuple(_faults(notebook, manifest))
    outcomes = execute(file, notebook, cell_seconds)
    verdicts = tuple(_verdict(entry, notebook, outcomes) for entry in manifest["exercises"])
    return Report(warnings, verdicts)


def read_notebook(file: Path) -> dict[str, Any]:
    """Content of a notebook file.

    Raises
    ------
    UserError
        With what is wrong with it.
    """
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError(f"{file} has more than {_LARGEST // 10**6} MB: clear its outputs and save it again")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} is not there") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a notebook: a notebook is JSON, and this is not ({error})") from error
    if not isinstance(content, dict) or not _well_formed(content.get("cells")):
        raise UserError(f"{file} is not a notebook: it is JSON without a list of cells")
    content.setdefault("metadata", {})
    return content


def _well_formed(cells: Any) -> bool:
    return isinstance(cells, list) and all(
        isinstance(cell, dict) and {"cell_type", "source", "metadata"} <= cell.keys() for cell in cells
    )


def grading(cell: dict[str, Any]) -> dict[str, Any]:
    """Metadata of nbgrader of a cell, if it has any."""
    return cell["metadata"].get("nbgrader", {})


def _manifest_of_cells(file: Path, notebook: dict[str, Any]) -> dict[str, Any]:
    """Some editors drop what they do not know from a notebook's metadata; its cells are still there."""
    ids = [grading(cell)["grade_id"] for cell in notebook["cells"] if "grade_id" in grading(cell)]
    if not ids:
        raise UserError(f"{file} is a notebook, and not one of an assignment: no cell is graded")
    return {"cells": ids, "exercises": [{"title": "all exercises", "cells": ids}]}


def _faults(notebook: dict[str, Any], manifest: dict[str, Any]) -> Iterator[str]:
    found = [cell for cell in notebook["cells"] if "grade_id" in grading(cell)]
    counts = Counter(grading(cell)["grade_id"] for cell in found)
    for grade_id in manifest["cells"]:
        if grade_id not in counts:
            yield f"The cell `{grade_id}` is missing: copy it from the notebook that you were given."
    for grade_id, count in counts.items():
        if count > 1:
            yield f"The cell `{grade_id}` is there {count} times, as happens when one copies a cell: delete the copies."
    for cell in found:
        if _was_edited(cell):
            yield (
                f"The cell `{grading(cell)['grade_id']}` is locked and was changed: grading uses it as it was given "
                "to you. Undo the change, or copy the cell from the notebook that you were given."
            )


def _was_edited(cell: dict[str, Any]) -> bool:
    about = grading(cell)
    if not about.get("locked") or about.get("solution") or "checksum" not in about:
        return False
    # A test without its points has been changed, too.
    return (about.get("grade") and "points" not in about) or about["checksum"] != checksum(cell)


def _verdict(entry: dict[str, Any], notebook: dict[str, Any], outcomes: dict[int, dict[str, Any]]) -> Verdict:
    cells = [(n, c) for n, c in enumerate(notebook["cells"]) if grading(c).get("grade_id") in entry["cells"]]
    answers = [cell for _, cell in cells if grading(cell).get("solution") and grading(cell).get("grade")]
    unwritten = list(filter(None, map(_about_answer, answers)))
    run = [(outcomes[number], cell) for number, cell in cells if number in outcomes]
    problems = list(dict.fromkeys(filter(None, (_about_cell(outcome, cell) for outcome, cell in run))))
    tested = any(grading(cell).get("grade") and not grading(cell).get("solution") for _, cell in run)
    return Verdict(entry["title"], _outcome(problems, unwritten, tested, cells), (*problems, *unwritten))


def _outcome(problems: list[str], unwritten: list[str], tested: bool, cells: list[Any]) -> str:
    if problems or not cells:
        return FAILED
    if unwritten:
        return UNFINISHED
    return PASSED if tested else BY_HAND


def _about_answer(cell: dict[str, Any]) -> str | None:
    empty = not source_of(cell).strip() or UNWRITTEN in source_of(cell) or STUB in source_of(cell)
    return f"`{grading(cell)['grade_id']}`: not written yet" if empty else None


def _about_cell(outcome: dict[str, Any], cell: dict[str, Any]) -> str | None:
    """What went wrong in a cell, in words for the person who has to find the mistake."""
    name = f"`{grading(cell)['grade_id']}`"
    if outcome["state"] in (NEVER_ENDED, ENDED):
        return f"{name}: {outcome['message']}"
    error = outcome["error"]
    if error is None:
        return None
    if error["name"] == STUB:
        return "not written yet"
    if error["expected"] and not error["message"]:
        return f"{name}: expected {error['expected']}"
    within = f" in `{error['within']}`" if error["within"] else ""
    if error["name"] == "AssertionError":
        return f"{name}: {error['message']}" + ("" if error["expected"] else f"\n(the test is{within})")
    return f"{name}: your code raised {error['name']}: {error['message']}\n(it was called{within})"
