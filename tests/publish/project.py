"""A small project with the real workflow and three tiny chapters, for tests that run it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import yaml

from dlatlas.publish.layout import place

ROOT = Path(__file__).parents[2]
PROFILE = "smoke"

PAGE = """---
kernelspec: {{name: python3, display_name: Python 3, language: python}}
jupytext: {{text_representation: {{extension: .md, format_name: myst}}}}
---

# {title}

```{{code-cell}} ipython3
:tags: [parameters]
profile = "cpu"
```

{cells}
"""

LIBRARY = {
    "ops/base.py": "def one():\n    return 1\n",
    "ops/other.py": "def two():\n    return 2\n",
    "theory/alpha.py": "from dlatlas.ops.base import one\n\ndef three():\n    return one() + 2\n",
    "theory/gamma.py": "from dlatlas.theory import alpha\n\ndef four():\n    return alpha.three() + 1\n",
}
PAGES = {
    "alpha": ["from dlatlas.theory.alpha import three", "print(three(), profile)"],
    "beta": ["import dlatlas.ops.other as other", "print(other.two())"],
    "gamma": ["from dlatlas.theory import gamma\nassert gamma.four() == 4", "print('done')"],
}
BUILD = """
import sys
from rich.console import Console
from dlatlas.publish.build import build
from dlatlas.publish.chapters import layout_of, written_pages
layout = layout_of("smoke")
options = {"jobs": int(sys.argv[1]), "cluster": sys.argv[2] or None, "target": "records"}
problems = build(layout, written_pages(layout), console=Console(), **options)
print("\\n".join(problems))
"""


class Project:
    """A project in a folder of its own, which imports its own copy of the package."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {"PYTHONPATH": str(root / "src"), "DLATLAS_BOOK": str(root / "book")}

    def page(self, name: str, *cells: str, part: str = "theory") -> None:
        """Write the chapter ``<part>/<name>``, or the page ``guide/<name>``."""
        code = "\n\n".join(f"```{{code-cell}} ipython3\n{cell}\n```" for cell in cells)
        self.write(f"{place(f'{part}/{name}')}.md", PAGE.format(title=name.title(), cells=code))

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def start(self, jobs: int = 2, cluster: str = "") -> subprocess.Popen:
        """Begin to run the chapters up to their records, in a process group of its own."""
        return self._begin("-c", BUILD, str(jobs), cluster)

    def _begin(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Tests that run in the background of a shell ignore interrupts, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def build(self, jobs: int = 2, cluster: str = "") -> str:
        """Run the chapters up to their records, and return what was printed."""
        process = self.start(jobs, cluster)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def begin(self, *arguments: str) -> subprocess.Popen:
        """Begin a command of the command line, in a process group of its own."""
        return self._begin("-m", "dlatlas.publish", *arguments)

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Call the command line."""
        process = self.begin(*arguments)
        output, _ = process.communicate(timeout=600)
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    def record(self, name: str) -> dict:
        """Record of a chapter."""
        return json.loads(self.record_file(name).read_text())

    def record_file(self, name: str) -> Path:
        """File of the record of a chapter."""
        return self.root / "_build" / PROFILE / "records" / "theory" / f"{name}.json"

    def notebook_file(self, name: str) -> Path:
        """Executed notebook of a chapter."""
        return self.root / "_build" / PROFILE / "executed" / "theory" / f"{name}.ipynb"

    def runs(self) -> dict[str, int]:
        """When each chapter was run last."""
        files = (self.root / "_build" / PROFILE / "records").glob("*/*.json")
        return {file.stem: file.stat().st_mtime_ns for file in files}


def book_project(root: Path, pages: dict[str, list[str]]) -> Project:
    """The whole book, with these pages (of the part ``theory``) as all that is run."""
    project = Project(root)
    without = ignore_patterns("__pycache__")
    for folder in ("book", "src", "workflow"):
        copytree(ROOT / folder, root / folder, ignore=without)
    for name in ("Snakefile", "requirements.lock", "_config.yml"):
        copy(ROOT / name, root / name)
    for registry in (root / "book/papers").glob("*.yml"):
        registry.write_text(registry.read_text().replace("status: written", "status: planned"))
    guide = yaml.safe_load((root / "book/guide.yml").read_text())
    for page in guide:
        if page.get("run"):
            (root / f"book/{page['page']}.md").unlink()
    for name, cells in pages.items():
        project.page(name, *cells)
    return project


def tiny_project(root: Path, pages: dict[str, list[str]] | None = None) -> Project:
    """A project with three chapters of which two share a module, one of them through another module."""
    project = Project(root)
    pages = PAGES if pages is None else pages
    without = ignore_patterns("__pycache__")
    for package in ("publish", "registry"):
        copytree(ROOT / "src/dlatlas" / package, root / "src/dlatlas" / package, ignore=without)
    for name in ("Snakefile", "requirements.lock", "src/dlatlas/progress.py"):
        copy(ROOT / name, root / name)
    copytree(ROOT / "workflow", root / "workflow", ignore=without)
    # Without `dlatlas.lab`, which these chapters do not use, a run needs no torch: a second and not four.
    for package in ("", "data", "ops", "theory"):
        project.write(f"src/dlatlas/{package}/__init__.py", "")
    copy(ROOT / "src/dlatlas/data/home.py", root / "src/dlatlas/data/home.py")
    for name, text in LIBRARY.items():
        project.write(f"src/dlatlas/{name}", text)
    for name, cells in pages.items():
        project.page(name, *cells)
    project.write("book/contents.yml", yaml.safe_dump([_part(list(pages))]))
    project.write("book/papers/theory.yml", yaml.safe_dump([_paper(n, name) for n, name in enumerate(pages, 1)]))
    return project


def _part(names: list[str]) -> dict:
    chapters = [{"chapter": f"theory/{name}", "title": name, "question": "?", "papers": [name]} for name in names]
    return {"part": "theory", "title": "Theory", "chapters": chapters}


def _paper(number: int, name: str) -> dict:
    return {
        "id": name,
        "n": number,
        "title": name,
        "cite": {"authors": None, "year": 2020, "venue": None, "arxiv": None, "doi": None},
        "chapter": f"theory/{name}",
        "kind": "theory",
        "source": "known",
        "repo": None,
        "implements": [],
        "status": "planned",
        "claims": [claim(f"{name}/first")],
    }


def claim(identifier: str) -> dict:
    """A claim that two is more than one."""
    return {
        "id": identifier,
        "says": "two is more than one",
        "measure": "number",
        "method": "two",
        "baseline": "one",
        "data": "none",
        "expect": "higher",
        "support": "higher",
        "note": None,
    }
