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
