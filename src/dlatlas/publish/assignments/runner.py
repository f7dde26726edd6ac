"""Runs the cells of a notebook in this process and reports how each ended: ``python -m ... notebook report skipped``.

The report is a file with one line a cell, written at once, so that whoever waits for it knows which cell is running. It
needs IPython and nothing of Jupyter, as a student may have installed the package alone.
"""

import ast
import json
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any


def run(notebook: Path, report: Path, skipped: set[int]) -> None:
    """Run the code cells of a notebook in order, except some; a cell that raises does not stop the others."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    with report.open("w", encoding="utf-8") as out:
        for position, cell in enumerate(cells):
            if cell["cell_type"] == "code" and position not in skipped:
                _say(out, position, "running")
                _say(out, position, "done", _run_cell(shell, "".join(cell["source"]), f"<cell {position}>"))


def _say(out: Any, position: int, state: str, error: dict[str, Any] | None = None) -> None:
    out.write(json.dumps({"cell": position, "state": state, "error": error}) + "\n")
    out.flush()


def _run_cell(shell: Any, source: str, name: str) -> dict[str, Any] | None:
    try:
        source = shell.transform_cell(source)
        run_source(source, shell.user_ns, name)
    except BaseException as error:  # sys.exit() in a cell ends the cell, not the report
        return describe(error, source, name)
    return None


def run_source(source: str, namespace: dict[str, Any], name: str) -> None:
    """Run the source of a cell in a namespace; its lines are known by ``name`` in tracebacks."""
    exec(compile(source, name, "exec"), namespace)


def describe(error: BaseException, source: str, name: str) -> dict[str, Any]:
    """What an error of a cell says to the person who wrote the code.

    Parameters
    ----------
    error
        What was raised.
    source, name
        The cell that was running, and its name in the traceback.

    Returns
    -------
    Name and message of the error; ``expected``, the failed condition where the cell itself asserts; and ``within``, the
    statement of the cell that was running.
    """
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    own = lines[-1] if lines else None
    asserts = isinstance(error, AssertionError) and _innermost(error.__traceback__) == name
    return {
        "name": type(error).__name__,
        "message": str(error).strip(),
        "expected": _condition(source, own) if asserts else None,
        "within": _line(source, own),
    }


def _innermost(trace: TracebackType | None) -> str | None:
    frames = traceback.extract_tb(trace)
    return frames[-1].filename if frames else None


def _condition(source: str, line: int | None) -> str | None:
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Assert)
            and line is not None
            and node.lineno <= line <= (node.end_lineno or node.lineno)
        ):
            return ast.unparse(node.test)
    return None


def _line(source: str, line: int | None) -> str | None:
    return source.split("\n")[line - 1].strip() if line else None


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), {int(text) for text in sys.argv[3].split(",") if text})
