"""The table of contents of the site: contents order, written chapters only."""

from typing import Any

import yaml

from dlatlas.lab.registry import Part, load_registry
from dlatlas.publish.api import api_pages
from dlatlas.publish.chapters import written_chapters
from dlatlas.publish.files import whole
from dlatlas.publish.layout import Layout

GUIDE = ("reading", "running", "teaching", "cluster")
REFERENCE = ("paper_index", "exercises", "notation", "bibliography")
HEADER = (
    "# Written by `dlatlas toc`: the parts in order, the chapters that have a notebook, the packages of the library.\n"
)


def table_of_contents(layout: Layout) -> dict[str, Any]:
    """Contents in the form of ``_toc.yml``."""
    registry = load_registry()
    written = set(written_chapters(layout))
    reference = [{"file": f"book/{page}"} for page in REFERENCE]
    api = [{"file": page} for page in api_pages(layout.root / "src" / "dlatlas", registry)]
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {"caption": "The atlas", "numbered": 2, "chapters": [_part(part, written) for part in registry.parts]},
            {"caption": "Using the book", "chapters": [{"file": f"book/guide/{page}"} for page in GUIDE]},
            {"caption": "Reference", "chapters": [*reference, {"file": "book/api/index", "sections": api}]},
        ],
    }


def _part(part: Part, written: set[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": f"book/parts/{part.part}"}
    sections = [{"file": f"notebooks/{chapter.chapter}"} for chapter in part.chapters if chapter.chapter in written]
    return {**entry, "sections": sections} if sections else entry


def write_toc(layout: Layout) -> None:
    """Write ``_toc.yml``."""
    contents = yaml.safe_dump(table_of_contents(layout), sort_keys=False, width=120)
    with whole(layout.root / "_toc.yml") as half:
        half.write_text(HEADER + contents, encoding="utf-8")
