"""The paper index: every paper, every measurement, nothing else."""

import pytest
from bs4 import BeautifulSoup

from dlatlas.publish.pages import Book, generated_pages, number
from dlatlas.publish.results import read_results
from dlatlas.registry import load_registry
from tests.publish.sample_book import EFFECTS, FAILED, FINISHED


@pytest.fixture
def index(sample):
    return BeautifulSoup(generated_pages(Book.read(sample))["book/paper_index.md"], "html.parser")


def rows_of(index, paper: str) -> list[list[str]]:
    """Cells of a paper's table; a claim that several runs measured fills one cell."""
    body = index.find(id=paper).find_all("tr")[1:]
    return [[cell.get_text(strip=True) for cell in row.find_all("td")] for row in body]


def test_every_paper_has_one_row(index):
    rows = [article["id"] for article in index.select("article.dla-paper")]
    assert rows == [paper.id for paper in load_registry().papers]
    assert len(rows) == 346


def test_papers_not_yet_written_say_so_and_link_nowhere(index):
    row = index.find(id="barlow-twins")
    assert "Not yet written" in row.get_text()
    assert row.find("a") is None
    assert row["data-verdicts"] == "open"


def test_written_papers_link_to_their_sections(index):
    row = index.find(id="comp-sum-losses")
    assert row.find("a")["href"] == f"../notebooks/{FINISHED}.html#comp-sum-losses"


def test_measurements_are_those_of_the_records(index):
    claim = load_registry().paper("comp-sum-losses").claims[0]
    effect = EFFECTS["supported"]
    interval = f"[{number(effect - 0.1)}, {number(effect + 0.1)}]"
    ours, machine = rows_of(index, "comp-sum-losses")[:2]
    assert ours == [claim.says + claim.data, "supported", number(effect), interval, "10", "cpu"]
    # The named machine comes second and shares the first cell.
    assert machine == ["supported", number(effect), interval, "32", "gpu, NVIDIA H200"]


def test_negative_numbers_have_a_minus_sign(index):
    assert rows_of(index, "comp-sum-losses")[2][2] == "−0.25"


def test_verdicts_of_a_row_are_what_the_filter_looks_for(index):
    assert set(index.find(id="comp-sum-losses")["data-verdicts"].split()) == set(EFFECTS)


def test_counts_agree_with_the_rows(index, sample):
    tally = read_results(sample).tally(load_registry().papers)
    assert tally.measured == len(index.select("article:not([data-verdicts=open])"))
    # Each claim counts once, however many machines measured it.
    papers = load_registry().papers_of(FINISHED) + load_registry().papers_of(FAILED)
    assert tally.measured_claims == sum(len(paper.claims) for paper in papers)
    counts = index.select(".dla-counts b")
    assert [int(count.text) for count in counts] == [tally.measured, *tally.claims.values()]


def test_paper_stands_as_its_least_favourable_claim(sample):
    results = read_results(sample)
    assert results.standing(load_registry().paper("comp-sum-losses")) == "contradicted"
    assert results.standing(load_registry().paper("barlow-twins")) is None


def test_nothing_was_run(sample, tmp_path):
    empty = type(sample)(tmp_path, "cpu")
    assert read_results(empty).tally(load_registry().papers).measured == 0
