"""The registry: what a broken one says, how supports are read, and that the book's own registry is whole."""

import ast
import importlib
import math
import re
from pathlib import Path

import jupytext
import pytest
import yaml

from dlatlas.registry import Registry, RegistryError, UnknownEntry, load_registry
from dlatlas.registry.schema import Paper, Support

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

CONTENTS = """\
- part: theory
  title: Theory
  chapters:
  - chapter: theory/kernels
    title: Kernels
    question: When does a network act like a kernel?
    papers:
    - wide-nets
    - narrow-nets
"""

ROW = """\
- id: {id}
  n: {n}
  title: A title
  cite: {{authors: [Ada, Bo], year: 2020, venue: null, arxiv: "2001.00001", doi: null}}
  chapter: theory/kernels
  kind: theory
  source: known
  repo: null
  implements: []
  status: planned
  claims:
    - id: {id}/first-claim
      says: it works
      measure: accuracy
      method: ours
      baseline: theirs
      data: digits
      expect: higher
      support: higher
      note: null
"""

ROWS = ROW.format(id="wide-nets", n=1) + "\n" + ROW.format(id="narrow-nets", n=2)


def write_registry(folder: Path, rows: str = ROWS, contents: str = CONTENTS, part: str = "theory") -> Path:
    (folder / "papers").mkdir()
    (folder / "papers" / f"{part}.yml").write_text(rows, encoding="utf-8")
    (folder / "contents.yml").write_text(contents, encoding="utf-8")
    return folder


def problems_of(folder: Path) -> list[str]:
    with pytest.raises(RegistryError) as caught:
        load_registry(folder)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture(scope="module")
def book() -> Registry:
    return load_registry()


def test_a_valid_registry_keeps_the_order_of_the_contents(tmp_path):
    contents = CONTENTS.replace("    - wide-nets\n    - narrow-nets\n", "    - narrow-nets\n    - wide-nets\n")
    registry = load_registry(write_registry(tmp_path, contents=contents))
    assert [paper.id for paper in registry.papers] == ["narrow-nets", "wide-nets"]
    assert [paper.id for paper in registry.papers_of("theory/kernels")] == ["narrow-nets", "wide-nets"]
    assert registry.claim("wide-nets/first-claim").paper == "wide-nets"
    assert registry.part("theory").chapters == registry.chapters
    assert registry.paper("wide-nets").part == "theory"


GUIDE = """\
- page: guide/reading
  title: Reading
- page: guide/running
  title: Running
"""


def test_pages_of_the_guide_have_no_papers_and_are_no_chapters(tmp_path):
    (tmp_path / "guide.yml").write_text(GUIDE)
    registry = load_registry(write_registry(tmp_path))
    assert [page.page for page in registry.guide] == ["guide/reading", "guide/running"]
    assert registry.page("guide/running").title == "Running"
    assert registry.page("theory/kernels") is registry.chapter("theory/kernels")
    assert registry.papers_of("guide/running") == ()
    with pytest.raises(UnknownEntry, match="no chapter 'guide/runing' in the registry; closest: guide/running"):
        registry.page("guide/runing")
    with pytest.raises(UnknownEntry):
        registry.chapter("guide/running")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("guide/running", "guide/reading", "guide.yml:3: row guide/reading: page guide/reading is already taken"),
        ("guide/running", "theory/running", "guide.yml:3: row theory/running: page: String should match pattern"),
        ("  title: Running\n", "", "guide.yml:3: row guide/running: title: Field required"),
    ],
)
def test_a_broken_guide_is_named(tmp_path, old, new, message):
    (tmp_path / "guide.yml").write_text(GUIDE.replace(old, new))
    assert [found for found in problems_of(write_registry(tmp_path)) if found.startswith(message)]


def test_a_registry_is_read_once(tmp_path):
    folder = write_registry(tmp_path)
    assert load_registry(folder) is load_registry(str(folder))


def test_the_folder_can_be_set_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DLATLAS_BOOK", str(write_registry(tmp_path)))
    assert len(load_registry().papers) == 2


# what is written in place of what, the row and the line that the message must name, and words of its reason
BROKEN_ROWS = {
    "duplicate id": ("- id: narrow-nets\n", "- id: wide-nets\n", "wide-nets", ["id wide-nets is already taken"]),
    "duplicate n": ("n: 2\n", "n: 1\n", "narrow-nets", ["n 1 is already taken by row wide-nets"]),
    "unknown kind": ("kind: theory\n", "kind: poem\n", "wide-nets", ["kind", "'theory'", "got 'poem'"]),
    "unknown source": ("source: known\n", "source: guessed\n", "wide-nets", ["source", "got 'guessed'"]),
    "unknown status": ("status: planned\n", "status: done\n", "wide-nets", ["status", "got 'done'"]),
    "unknown field": ("repo: null\n", "repo: null\n  colour: red\n", "wide-nets", ["colour", "Extra inputs"]),
    "missing field": ("      data: digits\n", "", "wide-nets", ["claims.0.data", "Field required"]),
    "empty title": ("title: A title\n", 'title: " "\n', "wide-nets", ["title", "at least 1 character"]),
    "year out of range": ("year: 2020", "year: 20200", "wide-nets", ["cite.year", "got 20200"]),
    "bad id": ("- id: wide-nets\n", "- id: Wide_Nets\n", "Wide_Nets", ["id", "pattern"]),
    "bad implements": ("implements: []\n", "implements: [torch.nn.ReLU]\n", "wide-nets", ["implements.0", "pattern"]),
    "bad support": ("support: higher\n", "support: better\n", "wide-nets", ["support", "expected higher", "'better'"]),
    "empty interval": ("support: higher\n", "support: {between: [2, 1]}\n", "wide-nets", ["low < high"]),
    "no margin": ("support: higher\n", "support: {equal: 0}\n", "wide-nets", ["low < high"]),
    "open interval": ("support: higher\n", "support: {between: [null, null]}\n", "wide-nets", ["cannot fail"]),
    "not a number": ("support: higher\n", "support: {equal: few}\n", "wide-nets", ["a finite number", "'few'"]),
    "unknown of": ("support: higher\n", "support: {slope: [0, 1], of: ratio}\n", "wide-nets", ["of: difference"]),
    "claim prefix": (
        "- id: wide-nets/first-claim\n",
        "- id: other-nets/first-claim\n",
        "wide-nets",
        ["other-nets/first-claim must begin with wide-nets/"],
    ),
    "claim without prefix": ("- id: wide-nets/first-claim\n", "- id: first-claim\n", "wide-nets", ["claims.0.id"]),
    "unknown chapter": (
        "chapter: theory/kernels\n",
        "chapter: theory/spectra\n",
        "wide-nets",
        ["chapter theory/spectra is not in contents.yml"],
    ),
    "repeated key": ("repo: null\n", "repo: null\n  n: 7\n", "wide-nets", ["the key 'n' is given twice"]),
}


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_a_broken_row_is_named_with_file_line_and_reason(tmp_path, name):
    old, new, row, reasons = BROKEN_ROWS[name]
    assert old in ROWS
    found = problems_of(write_registry(tmp_path, ROWS.replace(old, new, 1)))
    message = next((m for m in found if all(reason in m for reason in reasons)), None)
    assert message is not None, found
    place, _, rest = message.partition(": ")
    file, _, line = place.partition(":")
    assert file == "papers/theory.yml"
    assert rest.startswith(f"row {row}: ")
    # A missing field has no line of its own: the message points at the claim that lacks it.
    marked = new.splitlines()[-1] if new else "- id: wide-nets/first-claim"
    assert marked.strip() in ROWS.replace(old, new, 1).splitlines()[int(line) - 1]


def test_difference_of_slopes_needs_a_baseline(tmp_path):
    rows = ROWS.replace("baseline: theirs", "baseline: null", 1)
    rows = rows.replace("support: higher", "support: {slope: [null, 0], of: difference}", 1)
    assert any("no baseline" in message for message in problems_of(write_registry(tmp_path, rows)))


def test_yaml_that_cannot_be_parsed_is_named_with_its_line(tmp_path):
    rows = ROWS.replace("title: A title", "title: [A title", 1)
    line = rows.splitlines().index("  title: [A title") + 1
    (message, *_) = problems_of(write_registry(tmp_path, rows))
    file, number, reason = re.fullmatch(r"(.*?):(\d+): (.*)", message).groups()
    assert file == "papers/theory.yml"
    assert int(number) in (line, line + 1)
    assert reason.startswith("not valid YAML")


def test_all_problems_are_reported_at_once(tmp_path):
    rows = ROWS.replace("kind: theory", "kind: poem").replace("source: known", "source: guessed", 1)
    found = problems_of(write_registry(tmp_path, rows))
    assert sum("got 'poem'" in message for message in found) == 2
    assert sum("got 'guessed'" in message for message in found) == 1
    with pytest.raises(RegistryError, match=r"the registry has \d+ problems:\n  papers/theory.yml:"):
        load_registry(tmp_path)


def test_a_repeated_claim_is_refused(tmp_path):
    claim = ROW.format(id="wide-nets", n=1).split("  claims:\n")[1]
    found = problems_of(write_registry(tmp_path, ROWS.replace(claim, claim + claim, 1)))
    assert any("claim id wide-nets/first-claim is given twice" in message for message in found)


def test_a_listed_paper_needs_a_row(tmp_path):
    found = problems_of(write_registry(tmp_path, ROW.format(id="wide-nets", n=1)))
    assert found == [
        "contents.yml:7: row theory: chapter theory/kernels lists narrow-nets, which has no valid row",
    ]


def test_a_paper_is_listed_once(tmp_path):
    found = problems_of(write_registry(tmp_path, contents=CONTENTS + "    - wide-nets\n"))
    assert any("row wide-nets" in m and "theory/kernels, theory/kernels" in m for m in found)


def test_a_paper_that_is_not_listed_is_named(tmp_path):
    found = problems_of(write_registry(tmp_path, contents=CONTENTS.replace("    - narrow-nets\n", "")))
    assert any("row narrow-nets" in m and "it is listed nowhere" in m for m in found)


def test_a_row_belongs_in_the_file_of_its_part(tmp_path):
    found = problems_of(write_registry(tmp_path, part="practice"))
    assert all("belongs in papers/theory.yml" in message for message in found)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("chapter: theory/kernels", "chapter: practice/kernels", "practice/kernels is listed under part theory"),
        ("title: Kernels\n", "title: Kernels\n    mood: sad\n", "chapters.0.mood"),
        (
            "- part: theory\n  title: Theory\n",
            "- part: theory\n  title: Theory\n  part: again\n",
            "'part' is given twice",
        ),
    ],
)
def test_broken_contents_are_named(tmp_path, old, new, reason):
    found = problems_of(write_registry(tmp_path, contents=CONTENTS.replace(old, new)))
    assert any(message.startswith("contents.yml:") and reason in message for message in found)


def test_a_part_and_a_chapter_are_listed_once(tmp_path):
    found = problems_of(write_registry(tmp_path, contents=CONTENTS + CONTENTS))
    assert any("part theory is listed twice" in message for message in found)
    assert any("chapter theory/kernels is listed twice" in message for message in found)


def test_a_file_that_is_no_list_is_refused(tmp_path):
    found = problems_of(write_registry(tmp_path, rows="id: wide-nets\n"))
    assert "papers/theory.yml: cannot be read: expected a list of rows" in found


def test_an_empty_folder_is_refused(tmp_path):
    found = problems_of(tmp_path)
    assert any(message.startswith("contents.yml: cannot be read") for message in found)
    assert any("no registry files" in message for message in found)


@pytest.mark.parametrize(
    ("written", "region", "quantity", "described"),
    [
        ("higher", (0, math.inf), "difference", "method − baseline > 0"),
        ("lower", (-math.inf, 0), "difference", "method − baseline < 0"),
        ({"equal": 0.01}, (-0.01, 0.01), "difference", "|method − baseline| < 0.01"),
        ({"between": [-0.02, None]}, (-0.02, math.inf), "difference", "method − baseline > -0.02"),
        ({"between": [None, 3]}, (-math.inf, 3), "difference", "method − baseline < 3"),
        ({"between": [1, 2]}, (1, 2), "difference", "1 < method − baseline < 2"),
        ({"slope": [0.5, 1.5]}, (0.5, 1.5), "slope", "0.5 < slope(method) < 1.5"),
        ({"slope": [None, -0.5]}, (-math.inf, -0.5), "slope", "slope(method) < -0.5"),
        (
            {"slope": [None, 0], "of": "difference"},
            (-math.inf, 0),
            "slope",
            "slope(method) − slope(baseline) < 0",
        ),
    ],
)
def test_support_is_an_interval_for_one_quantity(written, region, quantity, described):
    support = Support.model_validate(written)
    assert support.region == region
    assert support.quantity == quantity
    assert support.describe() == described
    assert support.model_dump() == written


def test_support_is_described_with_the_names_of_the_arms():
    assert Support.model_validate("higher").describe(method="NTK", baseline="SP") == "NTK − SP > 0"
    assert Support.model_validate({"equal": 0.5}).describe(baseline=None) == "|method| < 0.5"


def test_unknown_names_are_answered_with_the_closest(tmp_path):
    registry = load_registry(write_registry(tmp_path))
    with pytest.raises(UnknownEntry, match="no paper 'wide-net' in the registry; closest: wide-nets"):
        registry.paper("wide-net")
    with pytest.raises(
        UnknownEntry, match="no claim 'wide-nets/first' in the registry; closest: wide-nets/first-claim"
    ):
        registry.claim("wide-nets/first")
    with pytest.raises(UnknownEntry, match="no paper 'wide-net' in the registry; closest: wide-nets"):
        registry.claim("wide-net/first-claim")
    with pytest.raises(UnknownEntry, match="no chapter 'theory/kernel' in the registry; closest: theory/kernels"):
        registry.chapter("theory/kernel")
    with pytest.raises(UnknownEntry, match="no part 'xyz' in the registry; known: theory"):
        registry.part("xyz")


def test_the_book_has_all_its_rows(book):
    assert sorted(paper.n for paper in book.papers) == list(range(346))
    assert len(book.chapters) == 101
    assert len(book.parts) == 14


def test_pages_of_the_guide_have_the_titles_that_are_listed(book):
    root = NOTEBOOKS.parent
    texts = {page.page: (root / f"book/{page.page}.md").read_text() for page in book.guide}
    headings = {page: re.search(r"^# (.*)$", text, re.MULTILINE)[1] for page, text in texts.items()}
    assert headings == {page.page: page.title for page in book.guide}


def test_chapters_open_with_the_title_and_the_question_of_the_contents(book):
    texts = {chapter: notebook_text(chapter.chapter) for chapter in book.chapters}
    written = {chapter: text for chapter, text in texts.items() if text}
    openings = {
        c.chapter: re.search(r"^# (.*)\n\n\*(.*)\*$", text, re.MULTILINE).groups() for c, text in written.items()
    }
    assert openings == {chapter.chapter: (chapter.title, chapter.question) for chapter in written}


def test_rows_are_in_the_order_of_the_contents(book):
    folder = Path(__file__).parents[2] / "book" / "papers"
    for part in book.parts:
        rows = yaml.load((folder / f"{part.part}.yml").read_text(encoding="utf-8"), yaml.CSafeLoader)
        assert [row["id"] for row in rows] == [p for chapter in part.chapters for p in chapter.papers]


def test_claims_without_a_baseline_have_an_absolute_region(book):
    bare = [c for c in book.claims if c.baseline is None and c.support.written in ("higher", "lower")]
    signed = ("correlation", "gain", "difference")
    assert [c.id for c in bare if not any(word in c.measure for word in signed)] == []


def test_texts_stand_alone(book):
    """No row sends the reader to another text by its place."""
    elsewhere = re.compile(r"\bcards?\b|(?<!read )\bas above\b|\bsee setting\b|\bprevious paper\b", re.IGNORECASE)
    texts = {
        c.id: " ".join(filter(None, [c.says, c.measure, c.method, c.baseline, c.data, c.note])) for c in book.claims
    }
    assert {claim: text for claim, text in texts.items() if elsewhere.search(text)} == {}


def not_importable(paper: Paper) -> list[str]:
    """Names in ``implements`` that do not exist."""
    return [name for name in paper.implements if not _exists(name)]


def _exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


def not_in_notebook(paper: Paper, text: str) -> list[str]:
    """What a written row promises and the text of its chapter lacks: its section label, its claims."""
    label = [] if f"({paper.id})=" in text else [f"({paper.id})="]
    named = named_claims(text)
    return label + [claim.id for claim in paper.claims if not any(name.fullmatch(claim.id) for name in named)]


def named_claims(text: str) -> list[re.Pattern[str]]:
    """What a page's calls can name: literal ids, and f-strings whose fields may be any part of an id."""
    calls = re.findall(r"""run\.claim(?:_slope)?\(\s*(f?)["']([^"']+)["']""", text)
    return [
        re.compile("[a-z0-9/-]*".join(map(re.escape, re.split(r"\{[^}]*\}", name) if formatted else [name])))
        for formatted, name in calls
    ]


def notebook_text(chapter: str) -> str:
    path = NOTEBOOKS / f"{chapter}.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_what_rows_implement_can_be_imported(book):
    assert {paper.id: bad for paper in book.papers if (bad := not_importable(paper))} == {}


def test_written_rows_implement_something(book):
    assert [paper.id for paper in book.papers if paper.status == "written" and not paper.implements] == []


def test_written_rows_are_in_their_notebook(book):
    written = [paper for paper in book.papers if paper.status == "written"]
    lacking = {paper.id: not_in_notebook(paper, notebook_text(paper.chapter)) for paper in written}
    assert {paper: missing for paper, missing in lacking.items() if missing} == {}


def test_notebooks_use_claims_of_their_own_chapter(book):
    called = re.compile(r"""run\.claim(?:_slope)?\(\s*["']([^"']+)["']""")
    for path in sorted(NOTEBOOKS.glob("*/*.md")):
        chapter = f"{path.parent.name}/{path.stem}"
        known = {claim.id for paper in book.papers_of(chapter) for claim in paper.claims}
        assert set(called.findall(path.read_text(encoding="utf-8"))) <= known, chapter


def echoes(source: str) -> bool:
    """Whether a cell ends in a claim whose verdict the notebook prints once more, for lack of a semicolon."""
    last = ast.parse(source).body[-1:]
    calls = [node.value.func for node in last if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    claimed = any(isinstance(call, ast.Attribute) and call.attr in ("claim", "claim_slope") for call in calls)
    return claimed and not source.rstrip().endswith(";")


def test_no_verdict_is_echoed_below_its_claim():
    assert echoes('x = 1\nrun.claim("a", method=x)')
    assert not echoes('run.claim("a", method=x);')
    for path in sorted(NOTEBOOKS.glob("*/*.md")):
        sources = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
        assert [source for source in sources if "run.claim" in source and echoes(source)] == [], path


def test_the_checks_of_written_rows_can_fail(tmp_path):
    rows = ROWS.replace("implements: []", "implements: [dlatlas.registry.load_registry, dlatlas.no.thing]", 1)
    paper = load_registry(write_registry(tmp_path, rows)).paper("wide-nets")
    assert not_importable(paper) == ["dlatlas.no.thing"]
    assert not_in_notebook(paper, "") == ["(wide-nets)=", "wide-nets/first-claim"]
    assert not_in_notebook(paper, "(wide-nets)=") == ["wide-nets/first-claim"]
    assert not_in_notebook(paper, '(wide-nets)=\nrun.claim("wide-nets/first-claim", method=m)') == []
