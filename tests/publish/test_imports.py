"""What the command line has to wait for before it can answer."""

import subprocess
import sys

import pytest

import dlatlas.publish
from tests.publish.project import Project, tiny_project

SLOW = ("jsonschema", "matplotlib", "numpy", "papermill", "snakemake", "sphinx", "torch")

COMMAND = """
import sys
from dlatlas.publish.cli import app
app(sys.argv[1:], standalone_mode=False)
print(*sys.modules)
"""
EVERY_MODULE = """
import importlib, pkgutil, sys
import dlatlas.publish
for module in pkgutil.iter_modules(dlatlas.publish.__path__, "dlatlas.publish."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sys.modules)
"""


def loaded(code: str, *arguments: str, project: Project | None = None) -> set[str]:
    """Modules that are loaded after the code has run."""
    place = {"cwd": project.root, "env": project.environment} if project else {}
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, **place
    )
    return set(finished.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tiny_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("command", ["list", "toc"])
def test_commands_that_only_read_the_registry_answer_at_once(project: Project, command: str) -> None:
    assert loaded(COMMAND, command, project=project).isdisjoint(SLOW)


def test_help_does_not_even_read_the_registry() -> None:
    modules = loaded("import dlatlas.publish.cli, sys; print(*sys.modules)")
    assert modules.isdisjoint({*SLOW, "dlatlas.registry"})


def test_records_are_gathered_without_torch(project: Project) -> None:
    assert "torch" not in loaded(COMMAND, "records", project=project)


def test_no_module_of_the_workflow_needs_torch() -> None:
    """The subpackages may: answers of students are tensors."""
    modules = loaded(EVERY_MODULE)
    assert {f"{dlatlas.publish.__name__}.{name}" for name in ("build", "execute", "site")} <= modules
    assert "torch" not in modules
