"""One run of a chapter: outputs, record, progress, and every way in which it can end."""

import json
import threading
import time
from pathlib import Path

import nbformat
import pytest
from rich.console import Console

from dlatlas.publish.display import describe, showing
from dlatlas.publish.execute import execute_chapter, run
from dlatlas.publish.files import UNFINISHED, read_json, remove_unfinished, whole, write_json
from dlatlas.publish.layout import Layout
from dlatlas.publish.records import CLAIM_MIME, RUN_MIME, measured
from dlatlas.publish.report import Report
from tests.publish.project import Project

CHAPTER = "theory/alpha"


def show(mime: str, payload: dict) -> str:
    return f"from IPython.display import display\ndisplay({{{mime!r}: {payload!r}, 'text/plain': 'card'}}, raw=True)"


def executed(root: Path, *cells: str) -> tuple[nbformat.NotebookNode, dict]:
    Project(root).page("alpha", *cells)
    layout = Layout(root, "smoke")
    execute_chapter(CHAPTER, layout, layout.executed(CHAPTER), layout.record(CHAPTER))
    assert not list(root.rglob(f"{UNFINISHED}*"))
    return nbformat.read(layout.executed(CHAPTER), as_version=4), read_json(layout.record(CHAPTER))


def test_a_record_holds_what_the_page_displayed(tmp_path: Path) -> None:
    claim = {"kind": "claim", "id": "a/b", "effect": 1.5}
    check = {"kind": "check", "id": "a/c", "passed": True}
    about = {"chapter": CHAPTER, "seeds": 2}
    _, record = executed(tmp_path, show(RUN_MIME, about), show(CLAIM_MIME, claim) + "\n" + show(CLAIM_MIME, check))
    assert (record["chapter"], record["profile"], record["status"], record["error"]) == (
        CHAPTER,
        "smoke",
        "finished",
        None,
    )
    assert (record["run"], record["claims"], record["checks"]) == (about, [claim], [check])


def test_a_number_that_was_only_printed_is_not_in_the_record() -> None:
    printed = nbformat.v4.new_output("stream", text=json.dumps({"kind": "claim", "id": "a/b"}))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print()", outputs=[printed])])
    assert measured(notebook) == {"run": None, "claims": [], "checks": []}


def test_memory_and_time_are_those_of_the_kernel(tmp_path: Path) -> None:
    _, small = executed(tmp_path / "small", "import time; time.sleep(1)")
    _, large = executed(tmp_path / "large", "import time; block = bytearray(300_000_000); time.sleep(1)")
    assert 1 < small["seconds"] < 60
    assert 20 < small["peak_memory_mb"] < 200
    assert 250 < large["peak_memory_mb"] - small["peak_memory_mb"] < 350


def test_the_cell_that_raises_is_the_last_and_is_named(tmp_path: Path) -> None:
    notebook, record = executed(tmp_path, "print('before')", "1 / 0", "print('after')")
    assert record["status"] == "failed"
    assert record["error"] == {"cell": 3, "name": "ZeroDivisionError", "message": "division by zero"}
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert outputs[1][0].text == "before\n"
    assert outputs[2][0].ename == "ZeroDivisionError"
    assert outputs[3] == []


UNAVAILABLE = """
from dlatlas.data.home import PublishedFile, fetch
fetch(PublishedFile("digits.npz", "http://127.0.0.1:9/digits.npz", "md5:0"))
"""


def test_missing_data_are_named_with_file_folder_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLATLAS_DATA", str(tmp_path / "data"))
    _, record = executed(tmp_path, UNAVAILABLE)
    assert record["error"]["name"] == "DataUnavailableError"
    for part in ("digits.npz", str(tmp_path / "data"), "http://127.0.0.1:9/digits.npz"):
        assert part in record["error"]["message"].splitlines()[0]


def test_claims_before_the_failure_are_kept(tmp_path: Path) -> None:
    claim = {"kind": "claim", "id": "a/b"}
    _, record = executed(tmp_path, show(CLAIM_MIME, claim), "raise RuntimeError('later')")
    assert record["claims"] == [claim]


def test_no_mark_of_papermill_is_left_in_the_notebook(tmp_path: Path) -> None:
    notebook, _ = executed(tmp_path, "1 / 0")
    assert len(notebook.cells) == 3
    assert not any("papermill-error" in cell.source for cell in notebook.cells)


def test_a_run_does_not_depend_on_the_order_of_sets(tmp_path: Path) -> None:
    first, second = (executed(tmp_path / name, "print(hash('seed'))")[0].cells[-1].outputs for name in "ab")
    assert first == second


LOOP = """
import json, os, pathlib, time
pathlib.Path(os.environ["DLATLAS_PROGRESS"]).write_text(json.dumps({"label": "training", "done": 3, "total": 9}))
time.sleep(2)
"""


def test_a_run_reports_cells_and_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlatlas.publish.display.SECONDS_BETWEEN_LINES", 0.0)
    Project(tmp_path).page("alpha", LOOP, "1")
    layout = Layout(tmp_path, "smoke")
    console = Console(record=True, width=100, force_terminal=False)
    with showing([layout.progress(CHAPTER)], console):
        run(CHAPTER, layout)
    text = console.export_text()
    assert "theory/alpha: cell 2 of 3, training 3 of 9" in text
    assert "theory/alpha: finished after" in text


def test_a_display_follows_the_reports_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlatlas.publish.display.SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr("dlatlas.publish.display.SECONDS_BETWEEN_LINES", 0.0)
    console = Console(record=True, width=100, force_terminal=False)
    file = tmp_path / "theory" / "alpha.json"
    with showing([file], console):
        report = Report(file, CHAPTER, cells=2)
        time.sleep(0.1)
        report.next_cell()
        write_json({"label": "training", "done": 3, "total": 9}, report.loop_file)
        time.sleep(0.1)
        report.next_cell()
        time.sleep(0.1)
        report.end(failed=True, seconds=61.2)
    lines = [line.strip() for line in console.export_text().splitlines()]
    assert lines[0] == "theory/alpha: starting"
    assert "theory/alpha: cell 1 of 2, training 3 of 9" in lines
    assert lines[-2:] == ["theory/alpha: cell 2 of 2", "theory/alpha: failed in cell 2 after 61 s"]


def test_a_person_sees_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlatlas.publish.display.SECONDS_BETWEEN_LOOKS", 0.02)
    console = Console(record=True, width=120, force_terminal=True)
    file = tmp_path / "alpha.json"
    with showing([file], console):
        report = Report(file, CHAPTER, cells=4)
        report.next_cell()
        time.sleep(0.5)
        report.end(failed=False, seconds=2.0)
    text = console.export_text()
    assert "cell 1 of 4" in text
    assert "theory/alpha: finished after 2 s" in text


def test_a_loop_without_a_label_is_in_steps() -> None:
    report = {"state": "running", "cell": 1, "cells": 2, "loop": {"label": "", "done": 5, "total": 10}}
    assert describe(report) == "cell 1 of 2, step 5 of 10"


def write_half(file: Path) -> None:
    with whole(file) as half:
        half.write_text("half")
        raise RuntimeError


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with pytest.raises(RuntimeError):
        write_half(file)
    assert not list(tmp_path.iterdir())

    write_json([1], file)
    with pytest.raises(ValueError, match="JSON"):
        write_json(float("nan"), file)
    assert read_json(file) == [1]


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    contents = [["a"] * 20_000, ["b"] * 10]
    write_json(contents[0], file)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_json(content, file)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(read_json(file) in contents for _ in range(200))
    finally:
        stop.set()
        writer.join()


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / f"{UNFINISHED}-1-x.json").touch()
    (tmp_path / "kept.json").touch()
    remove_unfinished(tmp_path)
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["kept.json"]
