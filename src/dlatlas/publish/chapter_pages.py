"""A chapter as the site shows it: executed where it was run, without hidden tests, with a notice where one is due."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import place
from dlatlas.publish.links import resolve
from dlatlas.publish.notebooks import load
from dlatlas.publish.pages import Book

_HIDDEN_TESTS = re.compile(r"(?ms)^[ \t]*### BEGIN HIDDEN TESTS.*?^[ \t]*### END HIDDEN TESTS[ \t]*\n?")
_SOLUTION_MARKS = re.compile(r"(?m)^[ \t]*### (?:BEGIN|END) SOLUTION[ \t]*\n?")
_HEADING = re.compile(r"^# .*$", re.MULTILINE)
_PROSE = re.compile(r"^display\(\s*Markdown\(", re.MULTILINE)
_TIMINGS = ("papermill", "execution")
SHORT_DRAWING = 10  # lines of code that a reader may see above a figure

SMOKE_NOTICE = """:::{warning}
This page was run in the `smoke` profile: a few steps and two seeds, to see that the code runs.
Its figures and verdicts mean nothing.
:::"""
UNEXECUTED_NOTICE = """:::{note}
This page was not run in this build, so it has no results.
:::"""
MISSING_FIGURE = """<svg xmlns="http://www.w3.org/2000/svg" width="420" height="90">
<rect x="1" y="1" width="418" height="88" fill="none" stroke="#767676" stroke-dasharray="6 4"/>
<text x="210" y="50" fill="#767676" font-family="sans-serif" font-size="15" text-anchor="middle">not drawn</text>
</svg>"""


def chapter_page(chapter: str, book: Book) -> str:
    """Notebook of a chapter as JSON text, ready for the site."""
    layout = book.layout
    executed = layout.executed(chapter)
    was_run = executed.is_file()
    notebook = nbformat.read(executed, as_version=4) if was_run else load(chapter, layout)
    record = book.results.chapters.get(chapter, {})
    notebook.cells = [cell for cell in map(_shown, notebook.cells) if cell.source or cell.get("outputs")]
    if record.get("status") != "finished":
        _mark_missing_figures(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = resolve(cell.source, place(chapter), book)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.language_info = NotebookNode(name="python", pygments_lexer="ipython3")
    _announce(notebook, list(_notices(was_run, record, layout.profile)), chapter)
    return nbformat.writes(notebook)


def _shown(cell: NotebookNode) -> NotebookNode:
    """Cell without hidden tests, run times, and outputs that no page can show; what is not for reading is folded."""
    cell.metadata = NotebookNode({key: value for key, value in cell.metadata.items() if key not in _TIMINGS})
    if cell.cell_type == "code":
        cell.source = _SOLUTION_MARKS.sub("", _HIDDEN_TESTS.sub("", cell.source)).strip("\n")
        cell.outputs = [output for output in map(_showable, cell.outputs) if output is not None]
        if cell.metadata.get("nbgrader", {}).get("solution") or _draws_at_length(cell) or _writes_prose(cell):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
    return cell


def _draws_at_length(cell: NotebookNode) -> bool:
    """Whether a figure is drawn by so much code that it would part the measurement from its picture."""
    return "figure" in cell.metadata.get("mystnb", {}) and len(cell.source.splitlines()) > SHORT_DRAWING


def _writes_prose(cell: NotebookNode) -> bool:
    """Whether most of a cell fills numbers into sentences, which a reader would otherwise read twice."""
    code, *sentences = _PROSE.split(cell.source, maxsplit=1)
    return bool(sentences) and sentences[0].count("\n") >= code.count("\n")


def _showable(output: NotebookNode) -> NotebookNode | None:
    """Output without what is meant for programs: records, widgets."""
    if "data" in output:
        output.data = NotebookNode({mime: data for mime, data in output.data.items() if "/vnd." not in mime})
        if not output.data:
            return None
    return output


def _mark_missing_figures(cells: list[NotebookNode]) -> None:
    """Draw an empty frame for each figure that was not drawn, since the text refers to it by number."""
    for cell in cells:
        if "figure" in cell.metadata.get("mystnb", {}) and not any("data" in output for output in cell.outputs):
            cell.outputs.append(new_output("display_data", {"image/svg+xml": MISSING_FIGURE}))


def _notices(was_run: bool, record: Mapping[str, Any], profile: str) -> Iterator[str]:
    if record.get("status") == "failed":
        yield _failure_notice(record["error"])
    elif not was_run:
        yield UNEXECUTED_NOTICE
    if was_run and profile == "smoke":
        yield SMOKE_NOTICE


def _failure_notice(error: Mapping[str, Any]) -> str:
    return f""":::{{error}}
This page did not run to its end. Cell {error["cell"]} raised:

~~~text
{error["name"]}: {error["message"]}
~~~
:::"""


def _announce(notebook: NotebookNode, notices: list[str], chapter: str) -> None:
    """Put notices below the title, which may share its cell with the opening text."""
    if not notices:
        return
    for cell in notebook.cells:
        heading = _HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            before, after = cell.source[: heading.end()], cell.source[heading.end() :]
            cell.source = "\n\n".join([before, *notices]) + "\n\n" + after.lstrip("\n")
            return
    raise UserError(f"{place(chapter)}.md has no title (a line `# ...` in a Markdown cell)")
