"""Exercises of the chapters, found in their text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import jupytext

from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout

_EXERCISE = re.compile(r"(?m)^[:`]{3,}\{exercise(?:-start)?\}[ \t]*(?P<title>.*)\n(?P<options>(?:^:[\w-]+:.*\n)*)")
_SOLUTION = re.compile(r"(?m)^[:`]{3,}\{solution(?:-start)?\}[ \t]*(\S+)")
_LABEL = re.compile(r"(?m)^:label:[ \t]*(\S+)")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a chapter."""

    label: str
    title: str
    graded: bool
    solved: bool


def exercises_of(chapter: str, layout: Layout) -> list[Exercise]:
    """Exercises of a chapter in reading order.

    An exercise is graded when a graded cell (nbgrader) follows it before the next exercise begins.

    Raises
    ------
    UserError
        When an exercise has no label: nothing could link to it.
    """
    found: dict[str, str] = {}
    graded: set[str] = set()
    solved: set[str] = set()
    current = None
    for cell in jupytext.read(layout.notebook(chapter)).cells:
        if cell.cell_type == "markdown":
            for label, title in _exercises_in(cell.source, chapter):
                found[label] = title
                current = label
            solved.update(_SOLUTION.findall(cell.source))
        if current and cell.metadata.get("nbgrader", {}).get("grade"):
            graded.add(current)
    return [Exercise(label, title, label in graded, label in solved) for label, title in found.items()]


def _exercises_in(text: str, chapter: str) -> Iterator[tuple[str, str]]:
    for match in _EXERCISE.finditer(text):
        label = _LABEL.search(match["options"])
        if label is None:
            raise UserError(f"{chapter}: the exercise {match['title']!r} has no label (add a line `:label: ex-...`)")
        yield label[1], match["title"].strip()
