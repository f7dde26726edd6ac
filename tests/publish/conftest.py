"""One sample book and one site made of it for all tests of a session that look at pages."""

from pathlib import Path

import pytest

from dlatlas.publish.layout import Layout
from dlatlas.publish.site import build_site
from tests.publish.sample_book import make_sample_book


@pytest.fixture(scope="session")
def sample_book(tmp_path_factory) -> Layout:
    """Sample book; it has no table of contents of its own."""
    root = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DLATLAS_BOOK", str(root / "book"))
        return make_sample_book(root)


@pytest.fixture(scope="session")
def sample_site(sample_book) -> Path:
    """Folder of the built sample site."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DLATLAS_BOOK", str(sample_book.root / "book"))
        return build_site(sample_book.profile).parent


@pytest.fixture
def sample(sample_book, monkeypatch) -> Layout:
    """Sample book, and the library looks at it during the test."""
    monkeypatch.setenv("DLATLAS_BOOK", str(sample_book.root / "book"))
    return sample_book
