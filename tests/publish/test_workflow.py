"""The workflow on a tiny project: it runs what changed, survives being killed, and uses both cores."""

import json
import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml

from dlatlas.publish.build import _cut_off
from dlatlas.publish.files import UNFINISHED
from dlatlas.publish.layout import Layout
from dlatlas.publish.records import CLAIM_MIME
from tests.publish.project import PROFILE, Project, book_project, claim, tiny_project

pytestmark = pytest.mark.slow


def rerun(project: Project) -> set[str]:
    before = project.runs()
    project.build()
    return {name for name, when in project.runs().items() if when != before.get(name)}


def append(project: Project, name: str, text: str) -> None:
    file = project.root / name
    file.write_text(file.read_text() + text)


def change_text_and_claim(project: Project) -> None:
    append(project, "notebooks/theory/alpha.md", "\nMore.\n")
    file = project.root / "book/papers/theory.yml"
    papers = yaml.safe_load(file.read_text())
    papers[1]["claims"].append(claim("beta/second"))
    file.write_text(yaml.safe_dump(papers))


ALL = {"alpha", "beta", "gamma"}
CHANGES: dict[str, tuple[Callable[[Project], None], set[str]]] = {
    "nothing": (lambda project: None, set()),
    "a file is only touched": (lambda project: os.utime(project.root / "src/dlatlas/ops/base.py"), set()),
    "a module, imported through another one": (
        lambda project: append(project, "src/dlatlas/ops/base.py", "\n# changed\n"),
        {"alpha", "gamma"},
    ),
    "a module, imported directly": (
        lambda project: append(project, "src/dlatlas/ops/other.py", "\n# changed\n"),
        {"beta"},
    ),
    "a module of one chapter": (lambda project: append(project, "src/dlatlas/theory/gamma.py", "\n"), {"gamma"}),
    "the text of a chapter, and a claim of another": (change_text_and_claim, {"alpha", "beta"}),
    "the pinned requirements": (lambda project: append(project, "requirements.lock", "# changed\n"), ALL),
}


def test_what_changed_runs_again_and_nothing_else(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    assert rerun(project) == ALL
    cells = nbformat.read(project.notebook_file("alpha"), as_version=4).cells
    assert cells[1].source == 'profile = "smoke"'
    assert cells[-1].outputs[0].text == "3 smoke\n"

    for what, (change, chapters) in CHANGES.items():
        change(project)
        assert rerun(project) == chapters, what


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def kill_group(process: psutil.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_scheduler(process: psutil.Popen) -> None:
    process.kill()


@pytest.fixture
def gated(tmp_path: Path) -> Project:
    """A project with a quick chapter, and a slow one that waits until there is a file ``gate``."""
    gate = tmp_path / "project" / "gate"
    waiting = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.1)"
    return tiny_project(gate.parent, {"quick": ["1"], "slow": [waiting, "print('through')"]})


def wait_until_one_is_finished_and_one_runs(project: Project) -> None:
    progress = project.root / "_build/smoke/progress/theory/slow.json"
    # A run is over for Snakemake when its two outputs have left this folder; those of the other chapter stay.
    underway = project.root / ".snakemake/incomplete"
    wait_for(lambda: project.record_file("quick").is_file() and len(list(underway.iterdir())) == 2)
    wait_for(lambda: progress.is_file() and json.loads(progress.read_text())["cell"] == 2)


def stop_and_resume(project: Project, process: psutil.Popen, stop: Callable) -> str:
    """Stop a build in mid-run, see that nothing of it is left, and run it to its end; return what it had printed."""
    wait_until_one_is_finished_and_one_runs(project)
    family = psutil.Process(process.pid).children(recursive=True)
    finished = project.runs()

    stop(process)
    output, _ = process.communicate(timeout=20)
    wait_for(lambda: not any(member.is_running() for member in family), seconds=20)

    assert not project.record_file("slow").exists()
    assert not project.notebook_file("slow").exists()
    (project.root / "gate").touch()
    project.build()
    assert project.runs()["quick"] == finished["quick"]
    assert project.record("slow")["status"] == "finished"
    assert not list(project.root.rglob(f"{UNFINISHED}*"))
    return output


@pytest.mark.parametrize("kill", [kill_group, kill_scheduler])
def test_a_killed_build_resumes(gated: Project, kill: Callable) -> None:
    stop_and_resume(gated, gated.start(), kill)


def press_control_c(process: psutil.Popen) -> None:
    os.killpg(process.pid, signal.SIGINT)


def interrupt_scheduler(process: psutil.Popen) -> None:
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("interrupt", [press_control_c, interrupt_scheduler])
def test_an_interrupted_build_ends_with_one_line_and_resumes(gated: Project, interrupt: Callable) -> None:
    gated.write("_config.yml", "")  # which the site would be made of
    process = gated.begin("build", "--profile", PROFILE, "--jobs", "2")
    output = stop_and_resume(gated, process, interrupt)
    assert process.returncode == 130
    *before, last = output.strip().splitlines()
    assert last == "interrupted; the same command goes on from here"
    assert all(line.startswith("theory/") for line in before), output


def test_a_build_that_waits_for_another_can_be_interrupted(gated: Project) -> None:
    first = gated.start()
    wait_until_one_is_finished_and_one_runs(gated)
    second = gated.begin("build", "--profile", PROFILE)
    assert second.stdout.readline().startswith("Waiting for the build")
    interrupt_scheduler(second)
    assert second.wait(timeout=60) == 130
    assert second.stdout.read() == ""
    (gated.root / "gate").touch()
    first.communicate(timeout=60)
    assert first.returncode == 0


def test_a_page_of_the_guide_runs_with_the_chapters(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, {"alpha": ["1"]})
    project.write("book/guide.yml", "- {page: guide/tour, title: The tour, run: true}\n")
    project.page("tour", ":tags: [nbval-check-output]\nprint(profile)", part="guide")
    project.build()
    records = json.loads((project.root / "_build/smoke/records.json").read_text())
    assert [(record["chapter"], record["status"]) for record in records] == [
        ("theory/alpha", "finished"),
        ("guide/tour", "finished"),
    ]
    assert project.command("expected", "guide/tour").returncode == 0
    written = project.command("nbval")
    assert written.returncode == 0, written.stdout
    assert nbformat.read(project.root / "_build/smoke/nbval/guide/tour.ipynb", as_version=4).cells[-1].outputs


def test_a_half_written_notebook_without_its_record_is_run_again(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, {"alpha": ["1"]})
    project.build()
    project.record_file("alpha").unlink()
    project.notebook_file("alpha").write_text('{"cells": [')
    (project.root / "_build/smoke/records.json").unlink()
    project.build()
    assert nbformat.read(project.notebook_file("alpha"), as_version=4).cells[-1].outputs


def test_a_second_build_waits_for_the_first(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, {"alpha": ["import time; time.sleep(5)"]})
    first, second = project.start(), project.start()
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, outputs
    assert sum("Waiting for the build" in output for output in outputs) == 1
    assert sum("theory/alpha: finished" in output for output in outputs) == 1


FAILING = {
    "alpha": ["1"],
    "cut": ["import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time; time.sleep(30)"],
    "dead": ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
    "wrong": ["print('before')", "raise ValueError('no\\nway')", "print('after')"],
}


def test_failed_chapters_stop_no_other_and_are_tried_again(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, FAILING)
    output = project.build()

    assert "Error in rule" not in output
    assert project.record("alpha")["status"] == "finished"
    assert project.record("wrong")["error"] == {"cell": 3, "name": "ValueError", "message": "no\nway"}
    assert project.record("dead")["error"]["name"] == "KernelDied"
    assert project.record("cut")["error"]["name"] == "RunCutOff"
    assert project.record("cut")["error"]["message"].endswith("see _build/smoke/logs/theory/cut.log")
    assert [line.split(": ")[:3] for line in output.strip().splitlines()[-3:]] == [
        ["theory/cut", "cell 2", "RunCutOff"],
        ["theory/dead", "cell 2", "KernelDied"],
        ["theory/wrong", "cell 3", "ValueError"],
    ]
    cells = nbformat.read(project.notebook_file("wrong"), as_version=4).cells
    assert [[output.output_type for output in cell.outputs] for cell in cells[2:]] == [["stream"], ["error"], []]
    for name in ("cut", "dead"):
        assert nbformat.read(project.notebook_file(name), as_version=4).cells[2].outputs[-1].output_type == "error"

    project.page("wrong", "print('mended')")
    assert rerun(project) == {"cut", "dead", "wrong"}
    assert project.record("wrong")["status"] == "finished"


def test_a_chapter_whose_model_was_cut_off_is_given_up(tmp_path: Path) -> None:
    Project(tmp_path).page("alpha", "from dlatlas.models import zoo\nnet = zoo.load('vit', run)")
    Project(tmp_path).page("beta", "1")
    layout = Layout(tmp_path, PROFILE)
    failed = {"_build/smoke/zoo/vit.json": "out of time"}
    assert _cut_off(["theory/alpha", "theory/beta"], failed, layout) == {"theory/alpha": "out of time"}


def test_a_chapter_that_is_killed_again_is_not_taken_for_its_old_result(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, {"alpha": ["1"], "beta": ["1"]})
    project.build()
    project.page("alpha", *FAILING["cut"])
    project.build()
    assert project.record("alpha")["error"]["name"] == "RunCutOff"
    assert project.record("beta")["status"] == "finished"


def test_a_failed_chapter_is_a_page_of_the_site_and_the_last_line_of_the_build(tmp_path: Path) -> None:
    wrong = ["1", "raise ValueError('the fourth wall')"]
    project = book_project(tmp_path, {"grokking": wrong, "neural_tangent_kernel": ["print('well done')"]})
    finished = project.command("build", "--profile", PROFILE)
    assert finished.returncode == 1, finished.stdout
    *_, where, count, last = finished.stdout.strip().splitlines()
    assert where == f"Open {project.root}/_build/smoke/html/index.html"
    assert count == "Problems: 1"
    assert last == "theory/grokking: cell 3: ValueError: the fourth wall"
    pages = project.root / "_build/smoke/html/notebooks/theory"
    assert "the fourth wall" in (pages / "grokking.html").read_text()
    assert "well done" in (pages / "neural_tangent_kernel.html").read_text()

    project.page("grokking", "print('mended')")
    before = project.runs()
    finished = project.command("chapter", "theory/grokking", "--profile", PROFILE)
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.strip().splitlines()[-1] == f"Open {pages / 'grokking.html'}"
    assert "the fourth wall" not in (pages / "grokking.html").read_text()
    assert project.runs()["neural_tangent_kernel"] == before["neural_tangent_kernel"]


def spans(project: Project) -> list[tuple[float, float]]:
    outputs = [nbformat.read(project.notebook_file(name), as_version=4).cells[2].outputs[0].text for name in "ab"]
    return sorted(tuple(map(float, output.split())) for output in outputs)


def test_a_written_paper_owes_its_claims(tmp_path: Path) -> None:
    measured = {"kind": "claim", "id": "alpha/first"}
    show = f"from IPython.display import display\ndisplay({{{CLAIM_MIME!r}: {measured}, 'text/plain': ''}}, raw=True)"
    project = tiny_project(tmp_path, {"alpha": [show], "beta": ["1"], "gamma": ["1"]})
    file = project.root / "book/papers/theory.yml"
    papers = yaml.safe_load(file.read_text())
    for paper in papers[:2]:
        paper["status"] = "written"
    file.write_text(yaml.safe_dump(papers))
    assert project.build().strip().splitlines()[-1] == "theory/beta: does not measure beta/first"


@pytest.mark.parametrize(("jobs", "together"), [(1, False), (2, True)])
def test_chapters_run_side_by_side(tmp_path: Path, jobs: int, together: bool) -> None:
    page = [
        "import time; begin = time.time(); time.sleep(4); print(begin, time.time())",
        "import os\nprint(os.environ)",
    ]
    project = tiny_project(tmp_path, {"a": page, "b": page})
    project.build(jobs)
    overlap = any(later_begin < earlier_end for (_, earlier_end), (later_begin, _) in pairwise(spans(project)))
    assert overlap == together
    for name in "ab":
        environment = nbformat.read(project.notebook_file(name), as_version=4).cells[3].outputs[0].text
        assert "'OMP_NUM_THREADS': '1'" in environment
        assert "'MKL_NUM_THREADS': '1'" in environment
