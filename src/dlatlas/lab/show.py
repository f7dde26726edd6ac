"""Showing the library's source in a page."""

import ast
import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Markdown, display


def show(function: Callable) -> None:
    """Display the source of a function or class of the library, without its docstrings."""
    display(Markdown(f"```python\n{source_without_docstrings(function)}\n```"))


def source_without_docstrings(function: Callable) -> str:
    """The source of a function or class as it stands, less the docstrings."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).rstrip()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines[docstring.lineno - 1 : docstring.end_lineno] = [None] * (docstring.end_lineno - docstring.lineno + 1)
    return "\n".join(line for line in lines if line is not None)
