"""The pages and profiles that there are to run."""

from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout, repository
from dlatlas.registry import load_registry

PROFILES = ("smoke", "cpu", "gpu")


def layout_of(profile: str) -> Layout:
    """Paths of a build in a profile.

    Raises
    ------
    UserError
        When there is no such profile, with the list of those there are.
    """
    if profile not in PROFILES:
        raise UserError(f"no profile {profile!r}; the profiles are {', '.join(PROFILES)}")
    return Layout(repository(), profile)


def written_pages(layout: Layout) -> list[str]:
    """Chapters that have a notebook and pages of the guide that are run, in the order of the book.

    Raises
    ------
    UserError
        When a notebook is in none of the registered places.
    """
    guide = [page.page for page in load_registry().guide if page.run and layout.notebook(page.page).is_file()]
    return [*written_chapters(layout), *guide]


def written_chapters(layout: Layout) -> list[str]:
    """Chapters that have a notebook, in the order of the book.

    Raises
    ------
    UserError
        When a notebook is in none of the registered places.
    """
    registered = [chapter.chapter for chapter in load_registry().chapters]
    found = {f"{page.parent.name}/{page.stem}" for page in (layout.root / "notebooks").glob("*/*.md")}
    if strays := sorted(found.difference(registered)):
        pages = ", ".join(f"notebooks/{stray}.md" for stray in strays)
        raise UserError(f"not in book/contents.yml: {pages}")
    return [name for name in registered if name in found]


def require_written(chapter: str, layout: Layout) -> str:
    """Return the chapter's name.

    Raises
    ------
    UserError
        When it has no notebook, with the list of those that have one.
    """
    written = written_pages(layout)
    if chapter not in written:
        raise UserError(f"no chapter {chapter!r}; the written chapters are {', '.join(written) or '(none yet)'}")
    return chapter
