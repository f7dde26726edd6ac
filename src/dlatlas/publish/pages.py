"""Pages written from the registry and the records: front page, part openers, paper index, exercises, library."""

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dlatlas.publish import routes
from dlatlas.publish.api import api_pages
from dlatlas.publish.bibliography import bibtex
from dlatlas.publish.chapters import written_chapters, written_pages
from dlatlas.publish.exercises import exercises_of
from dlatlas.publish.layout import Layout
from dlatlas.publish.results import VERDICTS, Results, read_results
from dlatlas.registry import Chapter, Paper, Part, Registry, load_registry


@dataclass(frozen=True)
class Book:
    """All that a page can say: the registry, what was measured, the written chapters, and every page that is run."""

    layout: Layout
    registry: Registry
    results: Results
    written: tuple[str, ...]
    run: tuple[str, ...]

    @classmethod
    def read(cls, layout: Layout) -> "Book":
        """Gather the book as it is on disk."""
        written, run = tuple(written_chapters(layout)), tuple(written_pages(layout))
        return cls(layout, load_registry(), read_results(layout), written, run)


def generated_pages(book: Book) -> dict[str, str]:
    """Text of every generated page by its path in the staged source."""
    render = _renderer(book)
    pages = {
        "index.md": render("index.md", tally=book.results.tally(book.registry.papers)),
        "book/paper_index.md": render("paper_index.md", **_index_context(book)),
        "book/exercises.md": render("exercises.md", **_exercise_context(book)),
        "book/registry.bib": bibtex(book.registry.papers),
    }
    for part in book.registry.parts:
        pages[f"book/parts/{part.part}.md"] = render("part.md", **_part_context(part, book))
    return pages | _api(book, render)


def number(value: float) -> str:
    """Three significant digits, with a minus sign instead of a hyphen."""
    return f"{value:.3g}".replace("-", "−")


def byline(paper: Paper) -> str:
    """Authors, venue and year, as far as they are known."""
    authors = ", ".join(paper.cite.authors or ())
    published = " ".join(str(field) for field in (paper.cite.venue, paper.cite.year) if field)
    return " · ".join(field for field in (authors, published) if field) or "authors not yet verified"


def _renderer(book: Book) -> Any:
    templates = FileSystemLoader(book.layout.root / "book" / "_templates")
    environment = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["number"] = number
    environment.globals.update(
        registry=book.registry,
        results=book.results,
        written=book.written,
        byline=byline,
        papers_of_part=lambda part: _papers(part, book.registry),
    )
    return lambda name, **context: environment.get_template(name).render(**context)


def _papers(part: Part, registry: Registry) -> list[Paper]:
    return [paper for chapter in part.chapters for paper in registry.papers_of(chapter.chapter)]


def _index_context(book: Book) -> dict[str, Any]:
    def paper_verdicts(paper: Paper) -> list[str]:
        found = {measurement.verdict for claim in paper.claims for measurement in book.results.of(claim.id)}
        return [verdict for verdict in VERDICTS if verdict in found]

    def unmeasured(chapter: str) -> str:
        return "the page failed before it" if book.results.failed(chapter) else "not measured in this build"

    return {
        "tally": book.results.tally(book.registry.papers),
        "claims": len(book.registry.claims),
        "kinds": sorted({paper.kind for paper in book.registry.papers}),
        "paper_verdicts": paper_verdicts,
        "unmeasured": unmeasured,
    }


@dataclass(frozen=True)
class Stop:
    """A chapter on the route through its part."""

    chapter: Chapter
    written: bool
    builds_on: list[Chapter]


def _part_context(part: Part, book: Book) -> dict[str, Any]:
    opener = routes.read_opener(book.layout.root / "book" / "parts" / f"{part.part}.md", book.registry)
    stops = [Stop(c, c.chapter in book.written, routes.builds_on(c, opener, book.registry)) for c in part.chapters]
    return {
        "part": part,
        "prose": opener.prose,
        "stops": stops,
        "arcs": routes.arcs(part, opener.depends),
        "tally": book.results.tally(_papers(part, book.registry)),
    }


def _exercise_context(book: Book) -> dict[str, Any]:
    parts = []
    for part in book.registry.parts:
        found = [(c.chapter, exercises_of(c.chapter, book.layout)) for c in part.chapters if c.chapter in book.written]
        if chapters := [(chapter, exercises) for chapter, exercises in found if exercises]:
            parts.append({"title": part.title, "chapters": chapters})
    everything = [exercise for part in parts for _, exercises in part["chapters"] for exercise in exercises]
    return {"parts": parts, "count": len(everything), "graded": sum(exercise.graded for exercise in everything)}


def _api(book: Book, render: Any) -> dict[str, str]:
    pages = api_pages(book.layout.root / "src" / "dlatlas", book.registry)
    links = [(path.rsplit("/", 1)[1], text.splitlines()[0].removeprefix("# ")) for path, text in pages.items()]
    return {
        "book/api/index.md": render("api_index.md", pages=links),
        **{f"{path}.md": text for path, text in pages.items()},
    }
