"""What a run of a chapter measured, read from the outputs of the executed notebook: there is no other channel."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from dlatlas.publish.chapters import written_chapters
from dlatlas.publish.files import read_json, write_json
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import code_cells

CLAIM_MIME = "application/vnd.dlatlas.claim+json"
RUN_MIME = "application/vnd.dlatlas.run+json"


@dataclass(frozen=True)
class Failure:
    """The cell that stopped a run, and why; cells are counted from one, as ``In [1]``."""

    cell: int
    name: str
    message: str

    def __str__(self) -> str:
        return f"cell {self.cell}: {self.name}: {next(iter(self.message.splitlines()), '')}"


def measured(notebook: NotebookNode) -> dict[str, Any]:
    """Run, claims and checks of an executed notebook, as the cells displayed them."""
    results = list(_payloads(notebook, CLAIM_MIME))
    return {
        "run": next(_payloads(notebook, RUN_MIME), None),
        "claims": [result for result in results if result["kind"] == "claim"],
        "checks": [result for result in results if result["kind"] == "check"],
    }


def _payloads(notebook: NotebookNode, mime: str) -> Iterator[dict[str, Any]]:
    for cell in code_cells(notebook):
        yield from (output["data"][mime] for output in cell.outputs if mime in output.get("data", {}))


def collect(layout: Layout) -> list[dict[str, Any]]:
    """Gather the records of the chapters that were run into one file, in the order of the book."""
    files = map(layout.record, written_chapters(layout))
    records = [read_json(file) for file in files if file.is_file()]
    write_json(records, layout.records)
    return records


def failures(records: list[dict[str, Any]]) -> list[str]:
    """One line for each chapter that failed: the chapter, the cell, and what it raised."""
    return [f"{record['chapter']}: {Failure(**record['error'])}" for record in records if record["status"] == "failed"]
