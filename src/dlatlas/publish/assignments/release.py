"""A course folder of nbgrader: source notebooks, the students' versions, a zip of each, and the gradebook."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from shutil import rmtree
from zipfile import ZIP_DEFLATED, ZipFile

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

from dlatlas.publish.assignments.course import Course
from dlatlas.publish.assignments.notebook import assignment_notebook
from dlatlas.publish.assignments.selection import Exercises, Selected
from dlatlas.publish.errors import UserError
from dlatlas.publish.files import whole

SETTINGS = '''"""Settings of nbgrader for this course folder."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "{course_id}"
c.CourseDirectory.db_url = "sqlite:///gradebook.db"
'''


@dataclass(frozen=True)
class Released:
    """An assignment that students can be given."""

    name: str
    exercises: list[Selected]


def make_course(course: Course, exercises: Exercises, folder: Path) -> Iterator[Released]:
    """Write the course folder, one assignment after the other; what students have handed in stays as it is.

    Raises
    ------
    UserError
        When the course names exercises that are not there, or nbgrader refuses a notebook.
    """
    chosen = {name: exercises.chosen(name, course) for name in course.assignments}
    folder.mkdir(parents=True, exist_ok=True)
    course_id = re.sub(r"[^a-z0-9]+", "-", course.name.lower()).strip("-")
    (folder / "nbgrader_config.py").write_text(SETTINGS.format(course_id=course_id), encoding="utf-8")
    for name, selected in chosen.items():
        _write_source(assignment_notebook(name, course, selected), course, folder / "source" / name)
        with _own_programs_found():
            _release(name, course, course_id, folder)
        _zip(folder / "release" / name, folder / "handout" / f"{name}.zip")
        yield Released(name, selected)


def _write_source(notebook: NotebookNode, course: Course, folder: Path) -> None:
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{folder.name}.ipynb")
    (folder / "requirements.txt").write_text(f"{course.package}\njupyterlab>=4\n", encoding="utf-8")


def _release(name: str, course: Course, course_id: str, folder: Path) -> None:
    due = course.assignments[name].due
    database = f"sqlite:///{(folder / 'gradebook.db').resolve()}"
    with Gradebook(database, course_id) as gradebook:
        # The gradebook keeps dates in universal time, without a zone.
        gradebook.update_or_create_assignment(name, duedate=due and due.astimezone(UTC).replace(tzinfo=None))
    result = NbGraderAPI(config=_config(folder, course_id, database)).generate_assignment(name, force=True)
    if not result["success"]:
        raise UserError(f"nbgrader could not release {name}:\n{result.get('log') or result.get('error')}")


@contextmanager
def _own_programs_found() -> Iterator[None]:
    """Let nbgrader find the programs of this environment, which it calls by name, when it is not activated."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _config(folder: Path, course_id: str, database: str) -> Config:
    config = Config()
    config.CourseDirectory.root = str(folder.resolve())
    config.CourseDirectory.course_id = course_id
    config.CourseDirectory.db_url = database
    return config


def _zip(folder: Path, file: Path) -> None:
    with whole(file) as half, ZipFile(half, "w", ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
