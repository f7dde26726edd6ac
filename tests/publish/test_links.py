"""References from page to page."""

import pytest

from dlatlas.publish.layout import Layout
from dlatlas.publish.links import resolve
from dlatlas.publish.pages import Book
from dlatlas.registry import Chapter
from tests.publish.sample_book import UNEXECUTED

PAGE = f"notebooks/{UNEXECUTED}"


@pytest.fixture
def book(sample: Layout) -> Book:
    return Book.read(sample)


def unwritten(book: Book) -> Chapter:
    return next(chapter for chapter in book.registry.chapters if chapter.chapter not in book.run)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("[why](../theory/grokking.md)", "[why](../theory/grokking.ipynb)"),
        ("[](grokking.md#a-section)", "[](grokking.ipynb#a-section)"),
        ("[](/book/guide/shapes.md)", "[](/book/guide/shapes.ipynb)"),
        ("[](../../book/guide/reading.md)", "[](../../book/guide/reading.md)"),
        ("{doc}`grokking` and {doc}`it <grokking>`", "{doc}`grokking` and {doc}`it <grokking>`"),
        ("{ref}`comp-sum-losses`, {ref}`fig-curve`", "{ref}`comp-sum-losses`, {ref}`fig-curve`"),
        (
            "[a](../../book/notation.md), [b](https://a.org/x.md)",
            "[a](../../book/notation.md), [b](https://a.org/x.md)",
        ),
        ("[](../theory/no_such_chapter.md)", "[](../theory/no_such_chapter.md)"),
    ],
)
def test_references_to_what_is_there_stay(book: Book, text: str, resolved: str) -> None:
    assert resolve(text, PAGE, book) == resolved


def test_references_to_a_chapter_that_is_not_written_become_text(book: Book) -> None:
    chapter = unwritten(book)
    paper, name, title = chapter.papers[0], chapter.chapter, chapter.title
    written = {
        f"[this](../{name}.md)": "this (not yet written)",
        f"[](../{name}.md#part)": f"{title} (not yet written)",
        f"{{doc}}`../{name}`": f"{title} (not yet written)",
        f"{{doc}}`there <../{name}>`": "there (not yet written)",
        f"{{ref}}`{paper}` and {{ref}}`that <{paper}>`": f"{title} (not yet written) and that (not yet written)",
    }
    assert {text: resolve(text, PAGE, book) for text in written} == written
