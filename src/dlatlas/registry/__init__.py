"""The registry of papers and claims: what each page must show, and which outcome supports it.

One row a paper in ``book/papers/<part>.yml``; parts, chapters and reading order in ``book/contents.yml``;
the pages on how to use the book, which have no papers, in ``book/guide.yml``.
Everything is checked when it is loaded, and all that is wrong is reported at once, with file, line, row and reason.
This module imports no torch, so that the command line can read the registry at once.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dlatlas.registry.schema import Chapter, Cite, Claim, GuidePage, Paper, Part, Support

__all__ = [
    "Chapter",
    "Cite",
    "Claim",
    "GuidePage",
    "Paper",
    "Part",
    "Problem",
    "Registry",
    "RegistryError",
    "Support",
    "UnknownEntry",
    "book_folder",
    "load_registry",
]

Entry = TypeVar("Entry")

# The C parser is about ten times faster; a build of PyYAML without it reads the same.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Problem(NamedTuple):
    """One thing that is wrong in the registry, and where."""

    file: str
    line: int | None
    row: str | None
    reason: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}" if self.row is None else f"{place}: row {self.row}: {self.reason}"


class RegistryError(ValueError):
    """The registry cannot be used; ``problems`` holds everything that was found."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = f"the registry has {count} problem{'s' if count > 1 else ''}"
        super().__init__("\n  ".join([heading + ":", *map(str, self.problems)]))


class UnknownEntry(LookupError):
    """A paper, claim, chapter or part that the registry does not have."""


@dataclass(frozen=True)
class Registry:
    """All papers in the order of the book, with lookups by id."""

    parts: tuple[Part, ...]
    papers: tuple[Paper, ...]
    guide: tuple[GuidePage, ...]

    @property
    def chapters(self) -> tuple[Chapter, ...]:
        """All chapters in the order of the book."""
        return tuple(chapter for part in self.parts for chapter in part.chapters)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All claims in the order of the book."""
        return tuple(claim for paper in self.papers for claim in paper.claims)

    def part(self, name: str) -> Part:
        """Part of that name."""
        return _lookup("part", name, {part.part: part for part in self.parts})

    def chapter(self, name: str) -> Chapter:
        """Chapter ``part/chapter``."""
        return _lookup("chapter", name, {chapter.chapter: chapter for chapter in self.chapters})

    def page(self, name: str) -> Chapter | GuidePage:
        """Chapter ``part/chapter`` or page ``guide/page``."""
        pages = {chapter.chapter: chapter for chapter in self.chapters} | {page.page: page for page in self.guide}
        return _lookup("chapter", name, pages)

    def paper(self, paper_id: str) -> Paper:
        """Paper of that id."""
        return _lookup("paper", paper_id, {paper.id: paper for paper in self.papers})

    def claim(self, claim_id: str) -> Claim:
        """Claim ``paper-id/claim-name``."""
        paper = self.paper(claim_id.partition("/")[0])
        return _lookup("claim", claim_id, {claim.id: claim for claim in paper.claims})

    def papers_of(self, page: str) -> tuple[Paper, ...]:
        """Papers of a chapter in reading order; a page of the guide has none."""
        return tuple(self.paper(paper_id) for paper_id in self.page(page).papers)


def _lookup(what: str, name: str, known: Mapping[str, Entry]) -> Entry:
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=5, cutoff=0.5)
    hint = f"closest: {', '.join(close)}" if close else f"known: {', '.join(known)}"
    raise UnknownEntry(f"no {what} {name!r} in the registry; {hint}")


def book_folder() -> Path:
    """Folder that holds ``papers/`` and ``contents.yml``.

    ``$DLATLAS_BOOK`` when set, else the copy inside an installed wheel, else ``book/`` of the source tree.
    """
    if override := os.environ.get("DLATLAS_BOOK"):
        return Path(override)
    here = Path(__file__).resolve()
    return here.parent if (here.parent / "contents.yml").is_file() else here.parents[3] / "book"


def load_registry(folder: str | Path | None = None) -> Registry:
    """Read and check the registry; the result is kept for each folder.

    Parameters
    ----------
    folder
        Folder with ``papers/<part>.yml``, ``contents.yml`` and, if the book has a guide, ``guide.yml``; by default
        that of the book.

    Raises
    ------
    RegistryError
        With every problem found: file, line, row and reason.
    """
    return _load(Path(book_folder() if folder is None else folder).resolve())


@cache
def _load(folder: Path) -> Registry:
    problems: list[Problem] = []
    contents = _entries(folder, "contents.yml", Part, problems)
    names = sorted(path.name for path in (folder / "papers").glob("*.yml"))
    if not names:
        problems.append(Problem("papers", None, None, f"no registry files in {folder}"))
    rows = [entry for name in names for entry in _entries(folder, f"papers/{name}", Paper, problems)]
    guide = _entries(folder, "guide.yml", GuidePage, problems) if (folder / "guide.yml").is_file() else []
    problems.extend(_cross_check(contents, rows, guide))
    if problems:
        raise RegistryError(problems)
    parts = tuple(entry.record for entry in contents)
    papers = {entry.record.id: entry.record for entry in rows}
    order = [paper_id for part in parts for chapter in part.chapters for paper_id in chapter.papers]
    return Registry(parts, tuple(papers[paper_id] for paper_id in order), tuple(entry.record for entry in guide))


@dataclass(frozen=True)
class _Entry:
    """A valid record, and the YAML that it was read from."""

    record: Any
    node: yaml.Node
    file: str
    row: str

    def problem(self, reason: str, *place: str | int) -> Problem:
        return Problem(self.file, _line(self.node, place), self.row, reason)


def _entries(folder: Path, name: str, model: type[BaseModel], problems: list[Problem]) -> list[_Entry]:
    """Read the valid rows of one file; what is wrong goes to ``problems``."""
    try:
        rows = _rows(folder / name)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problems.append(Problem(name, line, None, f"not valid YAML: {error.problem}"))
        return []
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(Problem(name, None, None, f"cannot be read: {error}"))
        return []
    entries = []
    for index, (node, raw) in enumerate(rows):
        row = str(raw.get("id") or raw.get("part") or raw.get("page") or index) if isinstance(raw, dict) else str(index)
        problems.extend(Problem(name, line, row, reason) for line, reason in _repeated_keys(node))
        try:
            entries.append(_Entry(model.model_validate(raw), node, name, row))
        except ValidationError as error:
            problems.extend(Problem(name, _line(node, e["loc"]), row, _reason(e)) for e in error.errors())
    return entries


def _rows(path: Path) -> list[tuple[yaml.Node, Any]]:
    """Rows of a file, each as a node, which knows its lines, and as plain values."""
    loader = _Loader(path.read_text(encoding="utf-8"))
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.SequenceNode):
            raise ValueError("expected a list of rows")
        return [(node, loader.construct_document(node)) for node in root.value]
    finally:
        loader.dispose()


def _reason(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    given = "" if error["type"] in ("missing", "value_error") else f" (got {error['input']!r:.80})"
    return f"{place}: {message}{given}" if place else f"{message}{given}"


def _line(node: yaml.Node, place: Iterable[str | int]) -> int:
    """Line of the value at ``place``, or of the innermost node on the way that exists."""
    line = node.start_mark.line + 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = (node.value[step], node.value[step])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _repeated_keys(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """YAML readers keep the last of two equal keys silently; a registry must not."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, f"the key {key.value!r} is given twice"
            seen.add(key.value)
            yield from _repeated_keys(value)


def _cross_check(contents: list[_Entry], rows: list[_Entry], guide: list[_Entry]) -> Iterator[Problem]:
    """What no single row can show: ids that clash, and rows and contents that disagree."""
    yield from _check_contents(contents)
    yield from _check_unique(rows, "id", "n")
    yield from _check_unique(guide, "page")
    yield from _check_claims(rows)
    yield from _check_places(contents, rows)


def _check_contents(contents: list[_Entry]) -> Iterator[Problem]:
    parts, chapters = set(), set()
    for entry in contents:
        part = entry.record
        if part.part in parts:
            yield entry.problem(f"part {part.part} is listed twice")
        parts.add(part.part)
        for index, chapter in enumerate(part.chapters):
            place = ("chapters", index)
            if chapter.chapter in chapters:
                yield entry.problem(f"chapter {chapter.chapter} is listed twice", *place)
            if chapter.part != part.part:
                yield entry.problem(f"chapter {chapter.chapter} is listed under part {part.part}", *place)
            chapters.add(chapter.chapter)


def _check_unique(rows: list[_Entry], *fields: str) -> Iterator[Problem]:
    for field in fields:
        first: dict[Any, _Entry] = {}
        for entry in rows:
            value = getattr(entry.record, field)
            if value in first:
                other = first[value]
                yield entry.problem(f"{field} {value} is already taken by row {other.row} of {other.file}", field)
            first.setdefault(value, entry)


def _check_claims(rows: list[_Entry]) -> Iterator[Problem]:
    for entry in rows:
        seen = set()
        for index, claim in enumerate(entry.record.claims):
            place = ("claims", index, "id")
            if claim.paper != entry.record.id:
                yield entry.problem(f"claim id {claim.id} must begin with {entry.record.id}/", *place)
            if claim.id in seen:
                yield entry.problem(f"claim id {claim.id} is given twice", *place)
            seen.add(claim.id)


def _check_places(contents: list[_Entry], rows: list[_Entry]) -> Iterator[Problem]:
    """Every row in the chapter that it names, in the file of its part, and every listed paper with a row."""
    listed: dict[str, list[str]] = {}
    for part in contents:
        for chapter in part.record.chapters:
            for paper_id in chapter.papers:
                listed.setdefault(paper_id, []).append(chapter.chapter)
    chapters = {chapter.chapter for part in contents for chapter in part.record.chapters}
    for entry in rows:
        paper = entry.record
        if paper.chapter not in chapters:
            yield entry.problem(f"chapter {paper.chapter} is not in contents.yml", "chapter")
        elif listed.get(paper.id) != [paper.chapter]:
            places = f"in {', '.join(listed[paper.id])}" if paper.id in listed else "nowhere"
            yield entry.problem(f"contents.yml must list it once, in {paper.chapter}; it is listed {places}", "chapter")
        if entry.file != f"papers/{paper.part}.yml":
            yield entry.problem(f"belongs in papers/{paper.part}.yml, since its chapter is {paper.chapter}", "chapter")
    have = {entry.record.id for entry in rows}
    for part in contents:
        for index, chapter in enumerate(part.record.chapters):
            for paper_id in set(chapter.papers) - have:
                reason = f"chapter {chapter.chapter} lists {paper_id}, which has no valid row"
                yield part.problem(reason, "chapters", index, "papers")
