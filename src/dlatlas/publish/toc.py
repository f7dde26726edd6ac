"""The table of contents of the site: contents order, written chapters only."""

from collections.abc import Iterable
from typing import Any

import yaml

from dlatlas.publish.api import api_pages
from dlatlas.publish.chapters import written_chapters
from dlatlas.publish.files import whole
from dlatlas.publish.layout import Layout, place
from dlatlas.registry import GuidePage, Part, load_registry

REFERENCE = ("paper_index", "exercises", "notation", "bibliography")
HEADER = (
    "# Written by `dlatlas toc`: the parts in order, the chapters that have a notebook, the packages of the library.\n"
)


def table_of_contents(layout: Layout) -> dict[str, Any]:
    """Contents in the form of ``_toc.yml``."""
    registry = load_registry()
    written = set(written_chapters(layout))
    api = api_pages(layout.root / "src" / "dlatlas", registry)
    reference = [*(_entry(f"book/{page}") for page in REFERENCE), _entry("book/api/index", api)]
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {"caption": "The atlas", "numbered": 2, "chapters": [_part(part, written) for part in registry.parts]},
            {"caption": "Using the book", "chapters": _guide(registry.guide, layout)},
            {"caption": "Reference", "chapters": reference},
        ],
    }


def _part(part: Part, written: set[str]) -> dict[str, Any]:
    chapters = [chapter.chapter for chapter in part.chapters if chapter.chapter in written]
    return _entry(f"book/parts/{part.part}", map(place, chapters))


def _guide(pages: Iterable[GuidePage], layout: Layout) -> list[dict[str, Any]]:
    return [_entry(place(page.page)) for page in pages if layout.notebook(page.page).is_file()]


def _entry(file: str, below: Iterable[str] = ()) -> dict[str, Any]:
    sections = [{"file": page} for page in below]
    return {"file": file, "sections": sections} if sections else {"file": file}


def toc_text(layout: Layout) -> str:
    """Text of ``_toc.yml``."""
    return HEADER + yaml.safe_dump(table_of_contents(layout), sort_keys=False, width=120)


def write_toc(layout: Layout) -> None:
    """Write ``_toc.yml``."""
    with whole(layout.root / "_toc.yml") as half:
        half.write_text(toc_text(layout), encoding="utf-8")
