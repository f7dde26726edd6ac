"""How the chapters of a part build on each other: read from the part's opener, drawn as arcs beside its chapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dlatlas.publish.errors import UserError
from dlatlas.registry import Chapter, Part, Registry

_WIDTH = 100  # of the drawing; one chapter is 100 high, and the page stretches both


@dataclass(frozen=True)
class Opener:
    """Text of a part's opening page, and for each of its chapters those that it builds on."""

    prose: str
    depends: Mapping[str, tuple[str, ...]]


def read_opener(file: Path, registry: Registry) -> Opener:
    """Read ``book/parts/<part>.md``: front matter with ``depends``, then the text.

    A chapter of another part is named with its part: ``theory/neural_tangent_kernel``.

    Raises
    ------
    UnknownEntry
        When a chapter is unknown.
    UserError
        When a chapter builds on a later chapter of its own part.
    """
    _, front, prose = file.read_text(encoding="utf-8").split("---\n", 2)
    part = registry.part(file.stem)
    depends = {}
    for chapter, others in yaml.safe_load(front)["depends"].items():
        name = registry.chapter(_full(chapter, part)).chapter
        depends[name] = tuple(registry.chapter(_full(other, part)).chapter for other in others)
    _check_order(part, depends, file)
    return Opener(prose.strip(), depends)


def _full(chapter: str, part: Part) -> str:
    return chapter if "/" in chapter else f"{part.part}/{chapter}"


def _check_order(part: Part, depends: Mapping[str, Sequence[str]], file: Path) -> None:
    place = {chapter.chapter: number for number, chapter in enumerate(part.chapters)}
    for chapter, others in depends.items():
        for other in others:
            if place.get(other, -1) >= place[chapter]:
                raise UserError(f"{file}: {chapter} builds on {other}, which comes later in the book")


def arcs(part: Part, depends: Mapping[str, Sequence[str]]) -> list[str]:
    """Path data of one arc for each dependency inside the part, the wider the further it reaches."""
    place = {chapter.chapter: number for number, chapter in enumerate(part.chapters)}
    pairs = [(other, chapter) for chapter, others in depends.items() for other in others]
    spans = [(place[other], place[chapter]) for other, chapter in pairs if other in place]
    longest = max((end - start for start, end in spans), default=1)
    return [_arc(start, end, (end - start) / longest) for start, end in sorted(spans)]


def _arc(start: int, end: int, reach: float) -> str:
    top, bottom = 100 * start + 50, 100 * end + 50
    # A cubic with both handles at x goes three quarters of the way there.
    x = round(_WIDTH - 4 / 3 * (0.2 + 0.76 * reach) * _WIDTH)
    return f"M{_WIDTH} {top}C{x} {top} {x} {bottom} {_WIDTH} {bottom}"


def builds_on(chapter: Chapter, opener: Opener, registry: Registry) -> list[Chapter]:
    """Chapters that a chapter builds on, as its part's opener says."""
    return [registry.chapter(name) for name in opener.depends.get(chapter.chapter, ())]
