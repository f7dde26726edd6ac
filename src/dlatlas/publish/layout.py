"""Where things lie in the repository and in the build folder of a profile."""

from dataclasses import dataclass
from pathlib import Path

from dlatlas.publish.errors import UserError
from dlatlas.registry import book_folder


def repository() -> Path:
    """Root of the source tree that the book is built from.

    Raises
    ------
    UserError
        When the library was installed without it.
    """
    root = book_folder().parent
    if not (root / "notebooks").is_dir():
        raise UserError(
            f"there are no notebooks in {root}: the book is made in its source tree; clone the repository and call "
            "`make book` there, or set DLATLAS_BOOK to the folder `book` of a source tree"
        )
    return root


def place(page: str) -> str:
    """Path of a page in the repository and in the site, without its ending: chapters and the guide live apart."""
    return f"book/{page}" if page.startswith("guide/") else f"notebooks/{page}"


@dataclass(frozen=True)
class Layout:
    """Paths of one build: the repository, and what is made of it in one profile."""

    root: Path
    profile: str

    @property
    def build(self) -> Path:
        """Everything that is made in this profile."""
        return self.root / "_build" / self.profile

    @property
    def records(self) -> Path:
        """What every chapter of this build measured."""
        return self.build / "records.json"

    @property
    def machine_records(self) -> Path:
        """Committed results of full runs on named machines."""
        return self.root / "book" / "records"

    @property
    def source(self) -> Path:
        """Staged source of the site."""
        return self.build / "source"

    @property
    def html(self) -> Path:
        """The site."""
        return self.build / "html"

    def notebook(self, chapter: str) -> Path:
        """Text of a chapter, or of a page of the guide that is run."""
        return self.root / f"{place(chapter)}.md"

    def executed(self, chapter: str) -> Path:
        """Notebook of a chapter with its outputs."""
        return self.build / "executed" / f"{chapter}.ipynb"

    def record(self, chapter: str) -> Path:
        """What the run of a chapter measured, and how it ended."""
        return self.build / "records" / f"{chapter}.json"

    def progress(self, chapter: str) -> Path:
        """How far the run of a chapter is; there while it runs."""
        return self.build / "progress" / f"{chapter}.json"

    def log(self, chapter: str) -> Path:
        """What the program that runs a chapter printed."""
        return self.build / "logs" / f"{chapter}.log"
