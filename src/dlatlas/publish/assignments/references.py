"""What the labels of a chapter stand for: equations, figures, sections and exercises, and the papers that it cites."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from nbformat import NotebookNode

from dlatlas.publish.directives import EXERCISE, segments
from dlatlas.publish.errors import UserError
from dlatlas.registry import Paper, UnknownEntry, load_registry

Entry = TypeVar("Entry")

EQUATION = re.compile(r"(?ms)^\$\$\n(?P<tex>(?:(?!\$\$).)*?)\n\$\$[ \t]*\((?P<label>[\w:-]+)\)")
_SECTION = re.compile(r"(?m)^\((?P<label>[\w:-]+)\)=\n+#+[ \t]*(?P<title>.+)$")


@dataclass(frozen=True)
class Equation:
    """A numbered equation, and the paragraph that leads to it."""

    number: int
    tex: str
    lead: str

    @property
    def shown(self) -> str:
        """The equation with the number that it has in the chapter."""
        return f"$$\n{self.tex}\n\\tag{{{self.number}}}\n$$"


class References:
    """Labels of one chapter."""

    def __init__(self, chapter: str, cells: Iterable[NotebookNode]) -> None:
        self.chapter = chapter
        self.title = load_registry().chapter(chapter).title
        self._cells = list(cells)
        self._text = "\n\n".join(cell.source for cell in self._cells if cell.cell_type == "markdown")

    @cached_property
    def _equations(self) -> dict[str, Equation]:
        found = enumerate(EQUATION.finditer(self._text), start=1)
        return {m["label"]: Equation(number, m["tex"].strip(), self._lead(m.start())) for number, m in found}

    def _lead(self, position: int) -> str:
        """Paragraph just before a position, unless it is a heading or another block."""
        paragraphs = self._text[:position].rstrip("\n").rsplit("\n\n", 1)
        before = paragraphs[-1].strip()
        block = before.startswith(("#", "$$", "```", ":::", "(", "|")) or before.endswith(("$$", "```", ")\n"))
        return "" if block or EQUATION.search(before) else before

    @cached_property
    def _captions(self) -> dict[str, str]:
        figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in self._cells]
        return {figure["name"]: " ".join(figure["caption"].split()) for figure in figures if "name" in figure}

    @cached_property
    def _titles(self) -> dict[str, str]:
        titles = {match["label"]: match["title"].strip() for match in _SECTION.finditer(self._text)}
        exercises = [part for part in segments(self._text) if part.kind == EXERCISE]
        return titles | {part.options["label"]: part.argument for part in exercises if "label" in part.options}

    def equation(self, label: str) -> Equation:
        """Equation of that label."""
        return self._find(self._equations, "equation", label)

    def figure(self, label: str) -> str:
        """The first sentence of a figure's caption."""
        return self._find(self._captions, "figure", label).split(". ")[0].rstrip(".")

    def heading(self, label: str) -> str:
        """Title of a section or an exercise."""
        return self._find(self._titles, "section or exercise", label)

    def has_title(self, label: str) -> bool:
        """Whether the label names a section or an exercise."""
        return label in self._titles

    def paper(self, key: str) -> Paper:
        """Paper of the registry."""
        try:
            return load_registry().paper(key)
        except UnknownEntry as error:
            raise UserError(f"{self.chapter}: an exercise cites {key!r}: {error}") from error

    def _find(self, known: dict[str, Entry], what: str, label: str) -> Entry:
        if label not in known:
            raise UserError(
                f"{self.chapter}: an exercise refers to the {what} {label!r}, which the chapter does not have"
            )
        return known[label]
