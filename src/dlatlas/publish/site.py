"""The site: its source is staged from the book, the executed chapters and the records, then built by Jupyter Book."""

import subprocess
import sys
from pathlib import Path

from dlatlas.publish.chapter_pages import chapter_page
from dlatlas.publish.chapters import layout_of
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout, place
from dlatlas.publish.links import resolve
from dlatlas.publish.pages import Book, generated_pages
from dlatlas.publish.toc import toc_text

# What pages of book/ are made from, and is no page itself.
_INPUTS = ("_templates", "contents.yml", "course.yml", "guide.yml", "papers", "parts", "records")
_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


class SiteError(UserError):
    """The site could not be built; the message is what Sphinx complained about."""


def stage(profile: str) -> Path:
    """Write the source of the site, touching only files that changed, so that Sphinx rebuilds only those pages.

    Returns
    -------
    The folder of the staged source.
    """
    layout = layout_of(profile)
    _synchronise(staged_files(layout), layout.source)
    return layout.source


def build_site(profile: str) -> Path:
    """Stage and build the site of a profile.

    Returns
    -------
    The page to open.

    Raises
    ------
    SiteError
        When Sphinx warns of anything: a broken link, a label that is not there, a malformed docstring.
    """
    layout = layout_of(profile)
    source = stage(profile)
    _python("-c", _JUPYTER_BOOK, "config", "sphinx", str(source))
    strict = ("-W", "-n", "--keep-going", "-q")
    _python("-m", "sphinx", "-b", "html", *strict, "-d", str(layout.build / "doctrees"), str(source), str(layout.html))
    return layout.html / "index.html"


def staged_files(layout: Layout) -> dict[str, bytes]:
    """Content of every file of the site's source by its path there."""
    book = Book.read(layout)
    # The contents as they are now: a page that was just begun is not yet in the committed ones.
    settings = {"_config.yml": (layout.root / "_config.yml").read_bytes(), "_toc.yml": toc_text(layout).encode()}
    pages = {name: text.encode() for name, text in generated_pages(book).items()}
    chapters = {f"{place(name)}.ipynb": chapter_page(name, book).encode() for name in book.run}
    return {**settings, **_hand_written(book), **pages, **chapters}


def _hand_written(book: Book) -> dict[str, bytes]:
    root, folder = book.layout.root, book.layout.root / "book"
    run = set(map(book.layout.notebook, book.run))
    files = [file for file in folder.rglob("*") if file.is_file() and file not in run]
    files = [file for file in files if file.relative_to(folder).parts[0] not in _INPUTS]
    contents = {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
    pages = {
        name: resolve(text.decode(), name, book).encode() for name, text in contents.items() if name.endswith(".md")
    }
    return contents | pages


def _synchronise(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        file = folder / name
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    for file in folder.rglob("*"):
        if file.is_file() and file.relative_to(folder).as_posix() not in {*files, "conf.py"}:
            file.unlink()


def _python(*arguments: str) -> None:
    finished = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
    if finished.returncode:
        raise SiteError(f"the site could not be built:\n{finished.stdout[-2000:]}{finished.stderr[-8000:]}")
