"""Which files a chapter depends on."""

from pathlib import Path

import pytest

from dlatlas.publish.dependencies import files, imports, library_files
from dlatlas.publish.layout import Layout
from tests.publish.project import ROOT, Project


def imported(tmp_path: Path, *cells: str) -> set[str]:
    project = Project(tmp_path)
    project.page("alpha", *cells)
    return imports(project.root / "notebooks/theory/alpha.md")


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("from dlatlas import lab, plots", {"dlatlas.lab", "dlatlas.plots"}),
        ("import dlatlas.ops.kernels as k, torch", {"dlatlas.ops.kernels"}),
        ("from dlatlas.theory.grokking import a as b", {"dlatlas.theory.grokking.a"}),
        ("def late():\n    from dlatlas.data import modular", {"dlatlas.data.modular"}),
        ("%matplotlib inline\n!ls\nimport dlatlas", {"dlatlas"}),
        ("%%time\nimport torch", set()),
        ("import dlatlas_other\nfrom torch import nn", set()),
        ("this is no python\nimport dlatlas", set()),
    ],
)
def test_imports_of_a_cell(tmp_path: Path, cell: str, names: set[str]) -> None:
    assert imported(tmp_path, cell) == names


def test_text_that_looks_like_an_import_is_none(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.page("alpha", "1")
    page = tmp_path / "notebooks/theory/alpha.md"
    page.write_text(page.read_text() + "\n```python\nimport dlatlas.ops.kernels\n```\n")
    assert imports(page) == set()


def modules(*names: str) -> set[str]:
    return {file.relative_to(ROOT / "src/dlatlas").as_posix() for file in library_files(names, ROOT / "src")}


def test_a_function_stands_for_its_module() -> None:
    assert modules("dlatlas.ops.validate.positive") == modules("dlatlas.ops.validate")


def test_a_module_brings_what_it_imports_and_the_packages_above_it() -> None:
    assert {"typed.py", "ops/__init__.py", "__init__.py"} <= modules("dlatlas.ops.kernels")


def test_a_module_brings_nothing_else() -> None:
    assert modules("dlatlas.typed") == {"typed.py", "__init__.py"}
    assert not any(name.startswith(("publish/", "plots/")) for name in modules("dlatlas.ops.kernels"))


def test_the_laboratory_is_followed_through_its_package() -> None:
    assert {"lab/__init__.py", "lab/ensemble.py", "progress.py"} <= modules("dlatlas.lab")


def test_a_chapter_depends_on_its_text_and_the_pinned_requirements(tmp_path: Path) -> None:
    Project(tmp_path).page("alpha", "1")
    layout = Layout(tmp_path, "smoke")
    assert files("theory/alpha", layout) == [layout.notebook("theory/alpha"), tmp_path / "requirements.lock"]


def test_all_files_exist() -> None:
    assert all(file.is_file() for file in library_files(["dlatlas.lab", "dlatlas.plots"], ROOT / "src"))
