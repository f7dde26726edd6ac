"""What a run of a chapter measured, read from the outputs of the executed notebook: there is no other channel."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from dlatlas.publish.chapters import written_pages
from dlatlas.publish.files import read_json, write_json
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import code_cells
from dlatlas.registry import load_registry

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
    files = map(layout.record, written_pages(layout))
    records = [read_json(file) for file in files if file.is_file()]
    write_json(records, layout.records)
    return records


def problems(records: Iterable[dict[str, Any]]) -> list[str]:
    """One line for each claim that a chapter owes, then one for each chapter that failed: the cell, and what it raised.

    A chapter that finished owes the claims of its papers that the registry calls written.
    """
    records = list(records)
    finished = (record for record in records if record["status"] == "finished")
    failed = (record for record in records if record["status"] == "failed")
    return [
        *(f"{record['chapter']}: does not measure {claim}" for record in finished for claim in _owed(record)),
        *(f"{record['chapter']}: {Failure(**record['error'])}" for record in failed),
    ]


def _owed(record: dict[str, Any]) -> list[str]:
    claims = {claim["id"] for claim in record["claims"]}
    written = [paper for paper in load_registry().papers_of(record["chapter"]) if paper.status == "written"]
    return [claim.id for paper in written for claim in paper.claims if claim.id not in claims]
