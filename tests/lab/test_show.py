import importlib

import pytest

from dlatlas import lab
from dlatlas.lab.show import source_without_docstrings
from dlatlas.typed import typed


@typed
def halve(x: float) -> float:
    """Divide by two.

    Notes
    -----
    Exactly.
    """
    # Halving is exact in binary.
    return x / 2


class Pair:
    """Two numbers."""

    def total(self):
        """Their sum."""
        return 2


def test_shows_code_and_comments_without_docstrings():
    assert source_without_docstrings(halve).splitlines() == [
        "@typed",
        "def halve(x: float) -> float:",
        "    # Halving is exact in binary.",
        "    return x / 2",
    ]
    assert source_without_docstrings(Pair).splitlines() == [
        "class Pair:",
        "",
        "    def total(self):",
        "        return 2",
    ]


@pytest.fixture
def displayed(monkeypatch):
    """Texts of the Markdown that is displayed."""
    texts = []
    module = importlib.import_module("dlatlas.lab.show")  # the package exports a function of this name
    monkeypatch.setattr(module, "display", lambda markdown: texts.append(markdown.data))
    return texts


def test_a_table_has_one_line_a_row(displayed):
    lab.table(("$n$", 3), ((n, f"{1 / n:.2f}") for n in (1, 2)))
    assert displayed == ["| $n$ | 3 |\n| --- | --- |\n| 1 | 1.00 |\n| 2 | 0.50 |"]


def test_rows_of_another_length_are_refused(displayed):
    with pytest.raises(ValueError, match=r"rows must have 2 cells, one for each column; got \['1'\]"):
        lab.table(("a", "b"), [(1, 2), (1,)])
    assert not displayed
