"""Cells of a student run as in Jupyter, and what they show is kept within bounds."""

import time

import pytest

from dlatlas.publish.grading.limits import LARGEST_ANSWER, LONGEST_TEXT, MOST_CHARACTERS, MOST_OUTPUTS
from dlatlas.publish.grading.outputs import read_answer
from dlatlas.publish.grading.process import Stopped
from dlatlas.publish.grading.sandbox import STUDENT, choose_sandbox
from dlatlas.publish.grading.session import open_worker
from dlatlas.publish.grading.settings import Limits, Settings
from dlatlas.publish.grading.wire import to_bytes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    worker = open_worker(choose_sandbox(Settings(), tmp_path_factory.mktemp("c"), [], unsafe=True), STUDENT, Limits())

    def run(source: str, seconds: float = 20.0) -> dict:
        until = time.monotonic() + 60
        worker.send(to_bytes({"ask": "execute", "source": source, "seconds": seconds}), until)
        return read_answer(worker.receive(until))

    yield run
    worker.close()


def test_prints_and_values_are_kept(run):
    outputs = run("import sys\nprint('a')\nprint('b', file=sys.stderr)\n1 + 1")["outputs"]
    assert outputs[0] == {"output_type": "stream", "name": "stdout", "text": "a\nb\n"}
    assert outputs[1]["data"] == {"text/plain": "2"}


def test_figures_are_kept_and_scripts_are_not(run):
    outputs = run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nfrom IPython.display import HTML, display\n"
        "plt.plot([1, 2])\ndisplay(HTML('<script>alert(1)</script>'))"
    )["outputs"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "<script" not in str(outputs)


def test_errors_name_the_line_of_the_student(run):
    assert run("def f():\n    return 1 / 0\nf()")["error"] == {
        "name": "ZeroDivisionError",
        "message": "division by zero",
        "within": "return 1 / 0",
    }
    assert run("1 +")["error"]["name"] == "SyntaxError"


def test_output_is_cut(run):
    outputs = run(f"for _ in range(100):\n    print('x' * {LONGEST_TEXT // 10})")["outputs"]
    assert len(outputs[0]["text"]) < LONGEST_TEXT + 100
    assert "output cut here" in outputs[0]["text"]
    assert len(run(f"for i in range({2 * MOST_OUTPUTS}):\n    display(i)")["outputs"]) == MOST_OUTPUTS
    many = run(f"for i in range({MOST_OUTPUTS}):\n    display(i)\n    print('x' * {LONGEST_TEXT})")["outputs"]
    assert sum(len(output.get("text", "")) for output in many) <= MOST_CHARACTERS


def test_an_answer_that_is_too_long_is_not_read():
    answer = to_bytes({"outputs": [], "error": None, "more": "x" * LARGEST_ANSWER})
    with pytest.raises(Stopped, match="line of the grader"):
        read_answer(answer)


def test_a_cell_ends_when_its_time_is_over(run):
    start = time.monotonic()
    assert run("while True:\n    pass", seconds=0.3)["error"]["name"] == "TimeLimit"
    assert time.monotonic() - start < 10
    assert run("print('still here')")["outputs"][0]["text"] == "still here\n"


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"outputs": [], "error": 3},
        {"outputs": 3, "error": None},
        {"outputs": [{"output_type": "stream", "text": 3}], "error": None},
        {"outputs": [{"output_type": "display_data", "data": {"text/plain": {}}}], "error": None},
        {"outputs": [], "error": {"classes": [], "message": "", "line": None}},
        {"outputs": [], "error": {"classes": ["E"], "message": None, "line": None}},
    ],
)
def test_answers_that_are_none_stop_the_process(head):
    with pytest.raises(Stopped, match="line of the grader"):
        read_answer(to_bytes(head))


def test_only_known_formats_are_taken():
    data = {"text/html": "<script>", "text/plain": "x", "application/javascript": "alert(1)"}
    answer = to_bytes({"outputs": [{"output_type": "display_data", "data": data}], "error": None})
    assert read_answer(answer)["outputs"] == [
        {"output_type": "display_data", "data": {"text/plain": "x"}, "metadata": {}}
    ]
