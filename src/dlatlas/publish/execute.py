"""Run one chapter: text in, executed notebook and record out, whole or not at all, failed or not."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill import execute_notebook
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from dlatlas.progress import PROGRESS_FILE
from dlatlas.publish.files import read_json, whole, write_json
from dlatlas.publish.layout import Layout
from dlatlas.publish.notebooks import KERNEL, code_cells, load, tags
from dlatlas.publish.records import Failure, measured
from dlatlas.publish.report import Report
from dlatlas.publish.watch import Watch

ERROR_MARK = "papermill-error-cell-tag"


@dataclass(frozen=True)
class Execution:
    """How a run of a notebook went."""

    notebook: NotebookNode
    failure: Failure | None
    seconds: float
    peak_memory_mb: float


def execute_chapter(chapter: str, layout: Layout, output_notebook: Path, output_record: Path) -> None:
    """Run a chapter, and write its notebook and its record.

    A cell that raises is not an error here: the notebook ends with the cell's error, and the record says so.
    """
    _write(chapter, layout.profile, run(chapter, layout), output_notebook, output_record)


def give_up(chapter: str, layout: Layout, reason: str) -> None:
    """Write the notebook and the record of a chapter whose run was cut off before it could write its own."""
    report = layout.progress(chapter)
    cell = read_json(report)["cell"] if report.is_file() else 0
    failure = Failure(max(cell, 1), "RunCutOff", reason)
    execution = Execution(_with_failure(load(chapter, layout), failure), failure, 0.0, 0.0)
    _write(chapter, layout.profile, execution, layout.executed(chapter), layout.record(chapter))


def _write(chapter: str, profile: str, execution: Execution, notebook: Path, record: Path) -> None:
    with whole(notebook) as half:
        nbformat.write(execution.notebook, half)
    write_json(_record(chapter, profile, execution), record)


def _record(chapter: str, profile: str, execution: Execution) -> dict[str, Any]:
    return {
        "chapter": chapter,
        "profile": profile,
        "status": "failed" if execution.failure else "finished",
        "error": asdict(execution.failure) if execution.failure else None,
        "seconds": round(execution.seconds, 2),
        "peak_memory_mb": round(execution.peak_memory_mb, 1),
        **measured(execution.notebook),
    }


def run(chapter: str, layout: Layout) -> Execution:
    """Run a chapter and return what came out; write nothing but how far it is."""
    notebook = load(chapter, layout)
    report = Report(layout.progress(chapter), chapter, len(code_cells(notebook)))
    begin = time.monotonic()
    with TemporaryDirectory() as folder, _environment(report), Watch() as watch:
        draft = Path(folder, "draft.ipynb")
        failure = _run_cells(notebook, draft, layout.notebook(chapter).parent, report)
        notebook = nbformat.read(draft, as_version=4)
    seconds = time.monotonic() - begin
    report.end(failed=failure is not None, seconds=seconds)
    return Execution(_with_failure(notebook, failure), failure, seconds, watch.peak_memory_mb)


@contextmanager
def _environment(report: Report) -> Iterator[None]:
    """Environment that the kernel inherits; equal runs must not differ by the order of a set."""
    before = dict(os.environ)
    os.environ |= {PROGRESS_FILE: str(report.loop_file), "PYTHONHASHSEED": "0", "JUPYTER_PREFER_ENV_PATH": "1"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class ReportingEngine(NBClientEngine):
    """Papermill's engine, which says which cell begins, and writes the notebook once."""

    NAME = "dlatlas"

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, *, report: Report, **options: Any
    ) -> None:
        """Run the cells."""
        start = nb_man.cell_start

        def cell_start(cell: NotebookNode, cell_index: int, **kwargs: Any) -> None:
            if cell.cell_type == "code":
                report.next_cell()
            start(cell, cell_index, **kwargs)

        nb_man.cell_start = cell_start
        # Papermill writes the whole notebook before and after each cell, seconds in all; the end is enough for us.
        save, nb_man.save = nb_man.save, lambda: None
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.save = save


papermill_engines.register(ReportingEngine.NAME, ReportingEngine)


def _run_cells(notebook: NotebookNode, draft: Path, folder: Path, report: Report) -> Failure | None:
    try:
        execute_notebook(
            notebook,
            draft,
            engine_name=ReportingEngine.NAME,
            kernel_name=KERNEL,
            progress_bar=False,
            cwd=folder,
            report=report,
            # The kernel logs an error when it is shut down just as its last cell ends; what cells say is not logged.
            extra_arguments=["--log-level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        return Failure(report.cell, error.ename, error.evalue)
    except DeadKernelError:
        return Failure(report.cell, "KernelDied", "the kernel was killed or crashed; it may have run out of memory")
    return None


def _with_failure(notebook: NotebookNode, failure: Failure | None) -> NotebookNode:
    """Notebook without papermill's own marks of an error, and with an error in the cell that stopped it."""
    notebook.cells = [cell for cell in notebook.cells if ERROR_MARK not in tags(cell)]
    if failure:
        outputs = code_cells(notebook)[failure.cell - 1].outputs
        if not any(output.output_type == "error" for output in outputs):
            about = {"ename": failure.name, "evalue": failure.message, "traceback": [str(failure)]}
            outputs.append(nbformat.v4.new_output("error", **about))
    return notebook
