"""The command line: what it says when it cannot do what it was asked."""

import errno
from pathlib import Path

import pytest

from dlatlas.data.home import DataUnavailableError
from dlatlas.publish import cli
from dlatlas.publish.errors import Interrupted, UserError
from tests.publish.project import Project, tiny_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny_project(tmp_path_factory.mktemp("project"))


STRAY = "not in book/contents.yml: notebooks/theory/stray.md"


def refusal(project: Project, *arguments: str) -> str:
    finished = project.command(*arguments)
    assert finished.returncode == 2, finished.stdout
    assert "Traceback" not in finished.stdout
    return finished.stdout.strip()


@pytest.mark.parametrize("command", [["build"], ["chapter", "theory/alpha"], ["records"], ["site"]])
def test_an_unknown_profile_gets_the_list_of_profiles(project: Project, command: list[str]) -> None:
    assert refusal(project, *command, "--profile", "fast") == "no profile 'fast'; the profiles are smoke, cpu, gpu"


@pytest.mark.parametrize("command", ["chapter", "expected"])
@pytest.mark.parametrize("name", ["theory/delta", "alpha", "../theory/alpha"])
def test_an_unknown_chapter_gets_the_list_of_chapters(project: Project, command: str, name: str) -> None:
    known = "theory/alpha, theory/beta, theory/gamma"
    assert refusal(project, command, name) == f"no chapter {name!r}; the written chapters are {known}"


def test_an_unknown_cluster_gets_the_list_of_clusters(project: Project) -> None:
    assert refusal(project, "build", "--cluster", "cloud").endswith("there is slurm")


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
NO_ACCESS = PermissionError(errno.EACCES, "Permission denied", "_build/smoke")


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (UserError("no such thing"), "no such thing", 2),
        (DataUnavailableError("x.npz is not in the data home"), "x.npz is not in the data home", 2),
        (NO_SPACE, "No space left on device", 2),
        (NO_ACCESS, "Permission denied: _build/smoke", 2),
        (Interrupted("interrupted"), "interrupted", 130),
    ],
)
def test_what_can_be_set_right_is_one_line(monkeypatch, capsys, error: Exception, message: str, status: int) -> None:
    monkeypatch.setattr(cli, "app", raising(error))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    assert capsys.readouterr().err == f"{message}\n"


@pytest.mark.parametrize("error", [KeyError("ours"), FileNotFoundError(errno.ENOENT, "No such file", "ours")])
def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch, error: Exception) -> None:
    monkeypatch.setattr(cli, "app", raising(error))
    with pytest.raises(type(error)):
        cli.main()


def raising(error: Exception):
    def app() -> None:
        raise error

    return app


def test_a_build_folder_that_is_none_is_named(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    project.write("_build", "")
    assert refusal(project, "build", "--profile", "smoke") == f"Not a directory: {project.root}/_build/smoke"


def test_a_library_without_its_source_tree_says_so(tmp_path: Path) -> None:
    project = tiny_project(tmp_path, {})
    assert refusal(project, "list").startswith(f"there are no notebooks in {project.root}: ")


def test_chapters_are_listed_in_the_order_of_the_book(project: Project) -> None:
    lines = project.command("list").stdout.splitlines()
    assert lines == ["theory/alpha: alpha", "theory/beta: beta", "theory/gamma: gamma"]


def test_a_page_without_parameters_is_named(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    page = project.root / "notebooks/theory/beta.md"
    page.write_text(page.read_text().replace(":tags: [parameters]", ""))
    assert refusal(project, "build") == "notebooks/theory/beta.md: no cell is tagged `parameters`"


def test_a_page_that_is_no_notebook_is_named(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    project.write("notebooks/theory/beta.md", "---\nkernelspec: {name: [\n---\n# A\n")
    assert refusal(project, "build").startswith("theory/beta.md cannot be read as a notebook: ")


def test_a_notebook_in_no_registered_place_is_named(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    project.page("stray", "1")
    assert refusal(project, "build") == STRAY


def test_a_wrong_registry_is_reported_with_file_and_row(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    file = project.root / "book/papers/theory.yml"
    file.write_text(file.read_text().replace("kind: theory", "kind: rumour", 1))
    message = refusal(project, "build")
    assert "papers/theory.yml" in message
    assert "alpha" in message
    assert "kind" in message


def test_expected_outputs_are_stored_from_a_run(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    project.page("alpha", ":tags: [nbval-check-output]\nprint(profile)")
    assert project.command("expected", "theory/alpha").returncode == 0
    assert '"smoke\\n"' in (project.root / "tests/notebooks/expected/theory/alpha.json").read_text()


def test_expected_outputs_are_not_stored_from_a_failed_run(tmp_path: Path) -> None:
    project = tiny_project(tmp_path)
    project.page("alpha", "1 / 0")
    assert refusal(project, "expected", "theory/alpha") == "theory/alpha: cell 2: ZeroDivisionError: division by zero"
    assert not (project.root / "tests/notebooks").exists()
