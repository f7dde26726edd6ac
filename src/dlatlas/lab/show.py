"""Showing the library's source and tables of results in a page."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from IPython.display import Markdown, display


def show(function: Callable) -> None:
    """Display the source of a function or class of the library, without its docstrings."""
    display(Markdown(f"```python\n{source_without_docstrings(function)}\n```"))


def table(columns: Sequence[Any], rows: Iterable[Sequence[Any]]) -> None:
    """Display a table.

    Parameters
    ----------
    columns
        What stands above each column, shown as its text, which is Markdown: ``"width $n$"``.
    rows
        One sequence of cells a row, each shown as its text: numbers come formatted, as ``f"{loss:.3f}"`` or
        ``f"{mean_interval(losses):.3f}"``.

    Raises
    ------
    ValueError
        If a row does not have one cell for each column.
    """
    columns, *rows = (list(map(str, line)) for line in (columns, *rows))
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"rows must have {len(columns)} cells, one for each column; got {row}")
    lines = [columns, ["---"] * len(columns), *rows]
    display(Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines)))


def source_without_docstrings(function: Callable) -> str:
    """The source of a function or class as it stands, less the docstrings."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).rstrip()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines[docstring.lineno - 1 : docstring.end_lineno] = [None] * (docstring.end_lineno - docstring.lineno + 1)
    return "\n".join(line for line in lines if line is not None)
