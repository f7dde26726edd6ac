"""References from page to page: those to a chapter that is not written yet become plain text."""

import posixpath
import re

from dlatlas.publish.layout import place
from dlatlas.publish.pages import Book

_ROLE = re.compile(r"\{(?P<role>doc|ref)\}`(?:(?P<text>[^`<]*?)\s*<)?(?P<target>[^`<>]+)>?`")
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#:]+)\.(?:md|ipynb)(?P<anchor>#[^)\s]*)?\)")


def resolve(text: str, page: str, book: Book) -> str:
    r"""Text of a page with references that the site can follow.

    A link to the text of a chapter (``../theory/grokking.md``) leads to its notebook. A chapter that is not written, or
    a paper of one (``{ref}`paper-id```), is named in plain text.

    Parameters
    ----------
    text
        Markdown.
    page
        The page's path in the source of the site.
    book
        Which pages there are.
    """

    def role(match: re.Match[str]) -> str:
        name = _chapter_at(match["target"], page) if match["role"] == "doc" else _chapter_of(match["target"], book)
        return _unwritten(name, match["text"], book) or match[0]

    def link(match: re.Match[str]) -> str:
        name = _chapter_at(match["target"], page)
        followed = f"[{match['text']}]({match['target']}.ipynb{match['anchor'] or ''})"
        return followed if name in book.run else _unwritten(name, match["text"], book) or match[0]

    return _LINK.sub(link, _ROLE.sub(role, text))


def _chapter_at(target: str, page: str) -> str | None:
    """Page that is run at a target: relative to a page, or to the source when the target begins with /."""
    path = posixpath.normpath(posixpath.join("/", posixpath.dirname(page), target))
    name = "/".join(path.split("/")[-2:])
    return name if path == f"/{place(name)}" else None


def _chapter_of(label: str, book: Book) -> str | None:
    """Chapter that holds the section of a paper; other labels are Sphinx's affair."""
    return next((paper.chapter for paper in book.registry.papers if paper.id == label), None)


def _unwritten(name: str | None, text: str | None, book: Book) -> str | None:
    """What stands for a chapter that is registered and has no notebook."""
    titles = {chapter.chapter: chapter.title for chapter in book.registry.chapters}
    if name in book.run or name not in titles:
        return None
    return f"{text or titles[name]} (not yet written)"
