"""References to the papers of the registry, in BibTeX, with the paper's id as key."""

from collections.abc import Iterable, Iterator

from dlatlas.registry import Paper

# Characters that BibTeX or its LaTeX reader would take for markup.
_ESCAPES = str.maketrans({character: f"\\{character}" for character in "&%#_$"})


def bibtex(papers: Iterable[Paper]) -> str:
    """All papers as one BibTeX file."""
    return "\n".join(_entry(paper) for paper in papers)


def _entry(paper: Paper) -> str:
    fields = "".join(f"  {name} = {{{value}}},\n" for name, value in _fields(paper))
    return f"@misc{{{paper.id},\n{fields}}}\n"


def _fields(paper: Paper) -> Iterator[tuple[str, str]]:
    cite = paper.cite
    # Braces keep the title's capitals, and a family name of several words in one piece.
    yield "title", f"{{{paper.title.translate(_ESCAPES)}}}"
    if cite.authors:
        yield "author", " and ".join("others" if name == "et al." else f"{{{name}}}" for name in cite.authors)
    if cite.venue and cite.venue != "arXiv":  # the number below says it
        yield "howpublished", cite.venue.translate(_ESCAPES)
    if cite.year:
        yield "year", str(cite.year)
    if cite.arxiv:
        yield "eprint", cite.arxiv
        yield "archiveprefix", "arXiv"
    if cite.doi:
        yield "doi", cite.doi
