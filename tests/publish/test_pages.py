"""Front page, part openers, exercises, bibliography, library pages."""

import re

import pytest
from bs4 import BeautifulSoup
from docutils.nodes import make_id
from pybtex.database import parse_string

from dlatlas.publish.api import documented_modules
from dlatlas.publish.bibliography import bibtex
from dlatlas.publish.errors import UserError
from dlatlas.publish.exercises import Exercise, exercises_of
from dlatlas.publish.pages import Book, generated_pages
from dlatlas.publish.routes import arcs, read_opener
from dlatlas.registry import load_registry
from tests.publish.sample_book import FAILED, FINISHED, REPOSITORY, UNEXECUTED

PARTS = [part.part for part in load_registry(REPOSITORY / "book").parts]


@pytest.fixture
def pages(sample) -> dict[str, str]:
    return generated_pages(Book.read(sample))


def soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def test_front_page_shows_all_parts_and_links_written_chapters_only(pages):
    front = soup(pages["index.md"])
    assert len(front.select(".dla-parts section")) == 14
    chapters = front.select(".dla-parts li")
    assert len(chapters) == len(load_registry().chapters)
    linked = [link["href"] for link in front.select(".dla-parts li a")]
    assert linked == [f"notebooks/{chapter}.html" for chapter in (FINISHED, UNEXECUTED, FAILED)]
    assert len(front.select(".dla-parts .dla-cells i")) == 346


def test_front_page_has_three_ways_in(pages):
    ways = soup(pages["index.md"]).select(".dla-ways a")
    assert [way.b.text for way in ways] == ["Read", "Run", "Teach"]
    for way in ways:
        assert (REPOSITORY / way["href"].replace(".html", ".md")).is_file()


@pytest.mark.parametrize("part", PARTS)
def test_opener_has_text_and_a_route_in_reading_order(part):
    registry = load_registry(REPOSITORY / "book")
    opener = read_opener(REPOSITORY / "book" / "parts" / f"{part}.md", registry)
    assert len(opener.prose.split("\n\n")) >= 2
    assert opener.depends, "no chapter builds on another"
    for name, others in opener.depends.items():
        assert registry.chapter(name).part == part
        assert len(set(others)) == len(others)


def test_opener_refuses_a_chapter_that_builds_on_a_later_one(tmp_path):
    file = tmp_path / "theory.md"
    file.write_text("---\ndepends: {neural_tangent_kernel: [grokking]}\n---\nText.\n")
    with pytest.raises(UserError, match="comes later"):
        read_opener(file, load_registry(REPOSITORY / "book"))


def test_opener_refuses_an_unknown_chapter(tmp_path):
    file = tmp_path / "theory.md"
    file.write_text("---\ndepends: {grokking: [groking]}\n---\nText.\n")
    with pytest.raises(LookupError, match="theory/grokking"):
        read_opener(file, load_registry(REPOSITORY / "book"))


def test_arcs_join_the_rows_of_the_chapters():
    theory = load_registry(REPOSITORY / "book").part("theory")
    names = [chapter.chapter for chapter in theory.chapters]
    (arc,) = arcs(theory, {names[3]: (names[1], "shift/few_shot")})
    start, end = re.match(r"M100 (\d+)C.* 100 (\d+)$", arc).groups()
    assert (int(start), int(end)) == (150, 350)


def test_exercises_are_found_with_their_grading_and_solutions(sample):
    assert exercises_of(FINISHED, sample) == [
        Exercise("ex-answer", "The answer", graded=True, solved=False),
        Exercise("ex-second", "", graded=False, solved=True),
    ]


def test_exercise_without_a_label_is_refused(sample, tmp_path):
    layout = type(sample)(tmp_path, "cpu")
    text = layout.notebook("theory/grokking")
    text.parent.mkdir(parents=True)
    text.write_text("# T\n\n```{exercise} Lost\n\nCompute.\n```\n")
    with pytest.raises(UserError, match="theory/grokking: the exercise 'Lost' has no label"):
        exercises_of("theory/grokking", layout)


def test_bibliography_holds_every_paper_under_its_id():
    papers = load_registry(REPOSITORY / "book").papers
    entries = parse_string(bibtex(papers), "bibtex").entries
    assert list(entries) == [paper.id for paper in papers]
    entry = entries["comp-sum-losses"]
    assert [person.last_names for person in entry.persons["author"]] == [["{Mao}"], ["{Mohri}"], ["{Zhong}"]]
    assert (entry.fields["year"], entry.fields["eprint"]) == ("2023", "2304.07288")


def test_paper_ids_are_anchors_as_they_stand():
    for paper in load_registry(REPOSITORY / "book").papers:
        assert make_id(paper.id) == paper.id


def test_library_pages_cover_every_public_module(pages):
    documented = set(re.findall(r"automodule:: (\S+)", "".join(pages.values())))
    for package in ("lab", "data", "models", "ops", "classification", "theory"):
        modules = set(documented_modules(REPOSITORY / "src" / "dlatlas", package))
        assert modules, package
        assert modules <= documented


def test_package_with_exports_is_one_section(tmp_path):
    package = tmp_path / "tools"
    package.mkdir()
    (package / "__init__.py").write_text('from tools.hammer import hit\n__all__ = ["hit"]\n')
    (package / "hammer.py").write_text("def hit(): ...\n")
    assert list(documented_modules(tmp_path, "tools")) == ["dlatlas.tools"]
    (package / "__init__.py").write_text('"""Tools."""\n')
    (package / "_private.py").write_text("def hidden(): ...\n")
    (package / "saws").mkdir()
    (package / "saws" / "fret.py").write_text("class Fret: ...\n")
    assert list(documented_modules(tmp_path, "tools")) == ["dlatlas.tools.hammer", "dlatlas.tools.saws.fret"]


def test_commands_that_the_guide_names_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", (REPOSITORY / "book/guide/running.md").read_text(), re.MULTILINE))
    assert named <= targets


def test_vendored_mathjax_has_its_licence():
    folder = REPOSITORY / "book" / "_static" / "mathjax"
    assert (folder / "LICENSE").read_text().strip().startswith("Apache License")
    assert (folder / "tex-svg-full.js").stat().st_size < 3_000_000
