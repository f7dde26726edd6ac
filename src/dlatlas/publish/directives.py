"""Markdown cut at the directives of exercises and solutions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

EXERCISE, SOLUTION, TEXT = "exercise", "solution", "text"

_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>exercise|solution(?:-start|-end)?)\}[ \t]*(?P<argument>.*)$")
_OPTION = re.compile(r"^:(?P<name>[\w-]+):[ \t]*(?P<value>.*)$")


@dataclass(frozen=True)
class Segment:
    """A piece of Markdown: plain text, or a directive with its argument, options and body."""

    kind: str
    text: str
    argument: str = ""
    options: dict[str, str] = field(default_factory=dict)


def segments(markdown: str) -> Iterator[Segment]:
    """Segments of a Markdown text in order; the marks of a solution that spans cells count as empty solutions."""
    plain: list[str] = []
    lines = iter(markdown.split("\n"))
    for line in lines:
        match = _FENCE.match(line)
        if not match:
            plain.append(line)
            continue
        if "\n".join(plain).strip():
            yield Segment(TEXT, "\n".join(plain).strip())
        plain = []
        yield _directive(match, list(_until_closed(lines, match["fence"])))
    if "\n".join(plain).strip():
        yield Segment(TEXT, "\n".join(plain).strip())


def _until_closed(lines: Iterator[str], fence: str) -> Iterator[str]:
    for line in lines:
        if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            return
        yield line


def _directive(match: re.Match[str], lines: list[str]) -> Segment:
    options = {}
    while lines and (option := _OPTION.match(lines[0])):
        options[option["name"]] = option["value"].strip()
        lines.pop(0)
    kind = EXERCISE if match["name"] == "exercise" else SOLUTION
    return Segment(kind, "\n".join(lines).strip(), match["argument"].strip(), options)
