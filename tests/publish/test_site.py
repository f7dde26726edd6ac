"""Staging and building: what reaches the site, what does not, and what stops the build."""

import shutil

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_markdown_cell, new_notebook

from dlatlas.publish import chapter_pages
from dlatlas.publish.errors import UserError
from dlatlas.publish.layout import Layout, place
from dlatlas.publish.site import SiteError, build_site, stage, staged_files
from dlatlas.publish.toc import table_of_contents
from tests.publish.sample_book import FAILED, FINISHED, GUIDE, REPOSITORY, SECRET, UNEXECUTED


def chapter_of(sample: Layout, name: str) -> nbformat.NotebookNode:
    return nbformat.reads(staged_files(sample)[f"notebooks/{name}.ipynb"].decode(), as_version=4)


def text_of(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells)


def test_committed_contents_are_up_to_date():
    committed = yaml.safe_load((REPOSITORY / "_toc.yml").read_text())
    assert committed == table_of_contents(Layout(REPOSITORY, "cpu")), "run `dlatlas toc`"


def test_contents_list_every_part_and_only_written_chapters(sample):
    atlas = table_of_contents(sample)["parts"][0]["chapters"]
    parts = [part["part"] for part in yaml.safe_load((REPOSITORY / "book" / "contents.yml").read_text())]
    assert [entry["file"] for entry in atlas] == [f"book/parts/{part}" for part in parts]
    listed = [section["file"] for entry in atlas for section in entry.get("sections", [])]
    # Contents order: the neural tangent kernel comes before grokking, whatever the alphabet says.
    assert listed == [f"notebooks/{chapter}" for chapter in (FINISHED, UNEXECUTED, FAILED)]


def test_pages_of_the_guide_are_listed_in_its_order_whether_run_or_not(sample):
    atlas, guide, _ = table_of_contents(sample)["parts"]
    listed = [entry["file"] for entry in guide["chapters"]]
    order = yaml.safe_load((REPOSITORY / "book" / "guide.yml").read_text())
    assert listed == [f"book/{entry['page']}" for entry in order]
    assert [entry["page"] for entry in order if entry.get("run")] == [GUIDE, "guide/zoo"]
    assert GUIDE not in str(atlas)
    assert "numbered" not in guide


def test_a_page_of_the_guide_is_no_chapter(sample):
    files = staged_files(sample)
    assert f"book/{GUIDE}.ipynb" in files
    assert f"book/{GUIDE}.md" not in files
    assert "guide.yml" not in str(list(files))
    for name in (
        "index.md",
        "book/paper_index.md",
        "book/exercises.md",
        *(f for f in files if f.startswith("book/parts/")),
    ):
        assert GUIDE.encode() not in files[name], name
    assert b"3 of them written" in files["index.md"]


def test_hidden_tests_and_their_marks_stay_out(sample):
    assert SECRET in sample.executed(FINISHED).read_text()
    for name, content in staged_files(sample).items():
        assert SECRET.encode() not in content, name
        assert b"### BEGIN" not in content or not name.startswith("notebooks/"), name  # the guide explains the marks
    assert "theta_hidden = theta()\nassert theta()" in text_of(chapter_of(sample, FINISHED))


def folded_cells(sample):
    return [cell.source for cell in chapter_of(sample, FINISHED).cells if "hide-input" in cell.metadata.get("tags", [])]


def test_solutions_of_graded_exercises_are_folded(sample):
    folded = folded_cells(sample)
    assert [source for source in folded if "def theta" in source]
    assert not [source for source in folded if "theta_hidden" in source]


def test_long_code_of_figures_is_folded(sample, monkeypatch):
    assert "plot()" not in folded_cells(sample)
    monkeypatch.setattr(chapter_pages, "SHORT_DRAWING", 0)
    assert "plot()" in folded_cells(sample)


def test_code_that_writes_sentences_is_folded(sample):
    sentences = [cell.source for cell in chapter_of(sample, FINISHED).cells if "Markdown(" in cell.source]
    assert len(sentences) == 2
    folded = [source for source in folded_cells(sample) if "Markdown(" in source]
    assert folded == [source for source in sentences if "measured" not in source]


def test_outputs_for_programs_stay_out(sample):
    outputs = [output for cell in chapter_of(sample, FINISHED).cells for output in cell.get("outputs", [])]
    mimes = {mime for output in outputs for mime in output.data}
    assert mimes == {"text/html", "text/markdown", "text/plain", "image/png"}


def test_failed_chapter_says_so_below_its_title(sample):
    first = chapter_of(sample, FAILED).cells[0].source
    assert first.startswith("# Grokking\n\n:::{error}")
    assert "Cell 2 raised" in first
    assert "ValueError: temperature must be positive" in first


def test_figures_that_a_failed_chapter_did_not_draw_keep_their_number(sample):
    """The text refers to them, and a reference to nothing would stop the build of the whole site."""
    missing = next(cell for cell in chapter_of(sample, FAILED).cells if cell.source == "plot()")
    assert "not drawn" in missing.outputs[0].data["image/svg+xml"]
    drawn = next(cell for cell in chapter_of(sample, FINISHED).cells if cell.source == "plot()")
    assert [list(output.data) for output in drawn.outputs] == [["image/png"]]


def test_chapter_that_was_not_run_says_so(sample):
    assert "was not run in this build" in text_of(chapter_of(sample, UNEXECUTED))
    assert "was not run in this build" not in text_of(chapter_of(sample, FINISHED))


def test_smoke_results_are_marked_as_meaningless(sample, tmp_path):
    root = tmp_path / "book"
    shutil.copytree(sample.root, root, symlinks=True, ignore=shutil.ignore_patterns("source", "html", "doctrees"))
    (root / "_build" / "cpu").rename(root / "_build" / "smoke")
    files = staged_files(Layout(root, "smoke"))
    for name in ("index.md", "book/paper_index.md", f"notebooks/{FINISHED}.ipynb"):
        assert b"mean nothing" in files[name], name


def test_staging_again_touches_nothing(sample):
    source = stage("cpu")
    before = {file: file.stat().st_mtime_ns for file in source.rglob("*")}
    assert stage("cpu") == source
    assert {file: file.stat().st_mtime_ns for file in source.rglob("*")} == before


def test_staging_removes_what_is_no_longer_in_the_book(sample):
    stray = stage("cpu") / "notebooks" / "theory" / "removed.ipynb"
    stray.write_text("{}")
    stage("cpu")
    assert not stray.exists()


def test_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="smoke, cpu, gpu"):
        stage("tpu")


@pytest.mark.slow
def test_site_builds_with_warnings_as_errors(sample_site):
    assert (sample_site / "index.html").is_file()
    for page in (FINISHED, FAILED, UNEXECUTED, GUIDE):
        assert (sample_site / f"{place(page)}.html").is_file()
    assert "temperature must be positive" in (sample_site / "notebooks" / f"{FAILED}.html").read_text()


@pytest.mark.slow
def test_displayed_markdown_may_hold_tables_and_mathematics(sample_site):
    page = BeautifulSoup((sample_site / "notebooks" / f"{FINISHED}.html").read_text(), "html.parser")
    cell = page.find("td", string="1.39").find_previous("td")
    assert cell.find(class_="math").get_text() == r"\(\tau = 1\)"


@pytest.mark.slow
def test_hidden_tests_are_in_no_file_of_the_site(sample_site):
    assert not [file for file in sample_site.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.slow
def test_broken_reference_stops_the_build(sample_book, tmp_path, monkeypatch):
    layout = Layout(tmp_path / "book", "cpu")
    monkeypatch.setenv("DLATLAS_BOOK", str(layout.root / "book"))
    # Without the library, whose pages take the longest.
    shutil.copytree(sample_book.root, layout.root, ignore=shutil.ignore_patterns("src", "source", "html", "doctrees"))
    page = new_notebook(cells=[new_markdown_cell("# Title\n\n{ref}`no-such-label`")])
    nbformat.write(page, layout.executed(UNEXECUTED))
    with pytest.raises(SiteError, match="no-such-label"):
        build_site("cpu")
