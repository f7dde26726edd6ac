"""Text of a chapter as plain Markdown with mathematics, as Jupyter and Colab show it."""

import re
from collections.abc import Callable

from dlatlas.publish.assignments.references import EQUATION, Equation, References
from dlatlas.publish.errors import UserError
from dlatlas.registry import Paper

_ROLE = re.compile(r"\{(?P<name>[a-z:]+)\}`(?P<target>[^`]*)`")
_TITLED = re.compile(r"^(?P<text>.*?)\s*<(?P<label>[^>]+)>$", re.DOTALL)
_DIRECTIVE = re.compile(r"(?m)^[`:]{3,}\{([\w:-]+)\}")
_ANCHOR = re.compile(r"(?m)^\([\w:-]+\)=\n")
_REFERS = re.compile(r"\{eq\}`([\w:-]+)`")


def plain(text: str, references: References) -> str:
    """Text without roles, labels and anchors: each becomes what it stands for.

    Raises
    ------
    UserError
        When it holds a directive or a role that has no counterpart, or an unknown label.
    """
    if unknown := _DIRECTIVE.search(text):
        raise UserError(f"{references.chapter}: an exercise holds the directive {unknown[1]!r}, unknown to Jupyter")
    text = _ANCHOR.sub("", text)
    text = EQUATION.sub(lambda match: references.equation(match["label"]).shown, text)
    return _ROLE.sub(lambda match: _role(match, references), text)


def context(text: str, references: References) -> str:
    """The equations of the chapter that a text refers to, each with the paragraph that leads to it."""
    inside = {match["label"] for match in EQUATION.finditer(text)}
    labels = dict.fromkeys(label for label in _REFERS.findall(text) if label not in inside)
    wanted = sorted((references.equation(label) for label in labels), key=lambda equation: equation.number)
    return "\n\n".join(_with_lead(equation, references) for equation in wanted)


def _with_lead(equation: Equation, references: References) -> str:
    lead = f"{plain(equation.lead, references)}\n\n" if equation.lead else ""
    return lead + equation.shown


def _role(match: re.Match[str], references: References) -> str:
    role = _ROLES.get(match["name"])
    if role is None:
        raise UserError(f"{references.chapter}: an exercise holds the role {match[0]!r}, which Jupyter cannot show")
    return role(match["target"].strip(), references)


def _equation(target: str, references: References) -> str:
    return f"({references.equation(target).number})"


def _figure(target: str, references: References) -> str:
    if references.has_title(target):
        return f"“{references.heading(target)}”"
    return f"the chapter's figure “{references.figure(target)}”"


def _heading(target: str, references: References) -> str:
    titled = _TITLED.match(target)
    return titled["text"] if titled else f"“{references.heading(target)}”"


def _document(target: str, references: References) -> str:
    titled = _TITLED.match(target)
    return titled["text"] if titled else f"the page {target.rsplit('/', 1)[-1]}"


def _cited(target: str, references: References) -> str:
    papers = [references.paper(key.strip()) for key in target.split(",")]
    return " and ".join(f"{_authors(paper)} ({paper.cite.year})" for paper in papers)


def _cited_aside(target: str, references: References) -> str:
    papers = [references.paper(key.strip()) for key in target.split(",")]
    return "(" + "; ".join(f"{_authors(paper)}, {paper.cite.year}" for paper in papers) + ")"


def _authors(paper: Paper) -> str:
    families = [name.split()[-1] if name != "et al." else name for name in paper.cite.authors or ("Unknown",)]
    if len(families) > 2:
        return f"{families[0]} et al."
    return " ".join(families) if "et al." in families else " and ".join(families)


_ROLES: dict[str, Callable[[str, References], str]] = {
    "eq": _equation,
    "numref": _figure,
    "ref": _heading,
    "doc": _document,
    "cite:t": _cited,
    "cite": _cited_aside,
    "cite:p": _cited_aside,
}
