"""The site as a reader sees it, opened from disk in headless Chromium.

``DLATLAS_SITE`` names the folder of a built site to look at, for instance ``_build/cpu/html``; by default it is a
sample site.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from dlatlas.registry import load_registry

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE = 1400, 390
INDEX = "book/paper_index.html"

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="session")
def site(request) -> Path:
    given = os.environ.get("DLATLAS_SITE")
    return Path(given).resolve() if given else request.getfixturevalue("sample_site")


@pytest.fixture(scope="session")
def names(site) -> list[str]:
    """Pages of the site, those of the book and its chapters."""
    pages = [file.relative_to(site).as_posix() for file in sorted(site.rglob("*.html")) if "_static" not in file.parts]
    return [page for page in pages if page not in ("genindex.html", "py-modindex.html", "search.html")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("the browser tests need Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, site: Path, width: int = WIDE, scheme: str = "light") -> Iterator[tuple[Page, list[str]]]:
    """A window, and what goes wrong in it: errors, and requests that fail or leave the site's folder."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []

    def note(what: str) -> None:
        problems.append(f"{page.url}: {what}")

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            note(message.text)

    def on_request(request: Request) -> None:
        if not request.url.startswith((site.as_uri() + "/", "data:")):
            note(f"left the folder for {request.url}")

    def on_failure(request: Request) -> None:
        # A page that is left before its icon has come aborts that request, which is nobody's fault.
        if "ABORTED" not in request.failure:
            note(f"{request.failure} {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: note(str(error)))
    page.on("request", on_request)
    page.on("requestfailed", on_failure)
    yield page, problems
    context.close()


def go(page: Page, site: Path, name: str) -> None:
    """Open a page and wait until its mathematics is typeset."""
    page.goto(f"{site.as_uri()}/{name}")
    page.evaluate("window.MathJax?.startup?.promise")


def chapters(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("notebooks/")]


def test_site_has_its_pages(names):
    assert {"index.html", INDEX, "book/bibliography.html", "book/exercises.html", "book/api/index.html"} <= set(names)
    assert len([name for name in names if name.startswith("book/parts/")]) == 14
    assert chapters(names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_load_without_errors_and_stay_in_their_folder(browser, site, names, scheme):
    with window(browser, site, scheme=scheme) as (page, problems):
        for name in names:
            go(page, site, name)
    assert not problems


def test_mathematics_is_typeset(browser, site, names):
    formulas = 0
    with window(browser, site) as (page, _):
        for name in names:
            go(page, site, name)
            formulas += page.locator(".math mjx-container svg").count()
            assert page.locator(".math").filter(has_not=page.locator("mjx-container")).count() == 0, name
            assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0, name
    assert formulas


def test_figures_are_there_and_lie_on_the_page(browser, site, names):
    with window(browser, site, scheme="dark") as (page, _):
        figures = 0
        for name in chapters(names):
            go(page, site, name)
            for image in page.locator(".cell_output img").all():
                figures += 1
                assert image.evaluate("image => image.naturalWidth") > 0, name
                style = (
                    "image => { const style = getComputedStyle(image); return [style.backgroundColor, style.filter]; }"
                )
                assert image.evaluate(style) == ["rgba(0, 0, 0, 0)", "none"], name
    assert figures


def test_nothing_is_wider_than_a_phone(browser, site, names):
    with window(browser, site, width=PHONE) as (page, _):
        wide = {}
        for name in names:
            go(page, site, name)
            if (beyond := page.evaluate(OVERFLOW)) > 0:
                wide[name] = beyond
    assert not wide


CUT_OFF = """() => [...document.querySelectorAll('.bd-article pre, .bd-article mjx-container[display="true"]')]
  .filter(box => box.scrollWidth > box.clientWidth + 1)
  .map(box => [getComputedStyle(box).overflowX, getComputedStyle(box, '::-webkit-scrollbar').height])"""
UNDER_NUMBERS = """() => [...document.querySelectorAll('.bd-article div.math')].filter(math => {
  const number = math.querySelector('.eqno'), formula = math.querySelector('mjx-container');
  return number && formula.getBoundingClientRect().right > number.getBoundingClientRect().left; }).length"""


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_long_lines_and_long_equations_have_a_bar_to_scroll_them(browser, site, names, width):
    with window(browser, site, width=width) as (page, _):
        scrolled = 0
        for name in chapters(names):
            go(page, site, name)
            boxes = page.evaluate(CUT_OFF)
            assert all(box == ["auto", "8px"] for box in boxes), name
            assert page.evaluate(UNDER_NUMBERS) == 0, name
            scrolled += len(boxes)
    assert scrolled


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser, site, names, scheme, width):
    with window(browser, site, width=width, scheme=scheme) as (page, _):
        faint = {}
        guide = [name for name in names if name.startswith("book/guide/")]
        for name in ["index.html", INDEX, "book/parts/theory.html", *guide, *chapters(names)]:
            go(page, site, name)
            assert page.locator("html").get_attribute("data-theme") == scheme
            if found := page.evaluate(CONTRAST):
                faint[name] = found[:5]
    assert not faint


def test_search_finds_a_chapter_by_its_title(browser, site, names):
    name = chapters(names)[0]
    title = load_registry().page(name.removeprefix("notebooks/").removesuffix(".html")).title
    with window(browser, site) as (page, problems):
        go(page, site, f"search.html?q={title.replace(' ', '+')}")
        page.locator("#search-results li a").first.wait_for()
        links = page.locator("#search-results li a").evaluate_all("links => links.map((link) => link.href)")
    assert any(name in link for link in links)
    assert not problems


def shown(page: Page) -> list[str]:
    return page.locator(".dla-paper:visible").evaluate_all("rows => rows.map((row) => row.id)")


@pytest.fixture
def index(browser, site) -> Iterator[Page]:
    with window(browser, site) as (page, problems):
        go(page, site, INDEX)
        yield page
    assert not problems


def test_index_shows_all_papers_at_first(index):
    assert shown(index) == [paper.id for paper in load_registry().papers]


def test_index_search_takes_every_word(index):
    index.locator("[name=text]").fill("Zbontar redundancy")
    papers = {paper.id: paper for paper in load_registry().papers}
    assert shown(index) == ["barlow-twins"]
    assert "Zbontar" in papers["barlow-twins"].cite.authors
    assert index.locator("output").inner_text() == "1 of 346 papers shown"


def test_index_filters_by_part_and_kind_together(index):
    index.locator("[name=part]").select_option("theory")
    index.locator("[name=kind]").select_option("phenomenon")
    expected = [paper.id for paper in load_registry().papers if (paper.part, paper.kind) == ("theory", "phenomenon")]
    assert shown(index) == expected
    assert index.locator("h2:visible").count() == 1
    index.get_by_role("button", name="Clear").click()
    assert len(shown(index)) == 346


@pytest.mark.parametrize("verdict", ["supported", "contradicted", "inconclusive", "open"])
def test_index_filters_by_verdict(index, verdict):
    rows = BeautifulSoup(index.content(), "html.parser").select("article.dla-paper")
    index.locator("[name=verdict]").select_option(verdict)
    assert shown(index) == [row["id"] for row in rows if verdict in row["data-verdicts"].split()]


def test_index_opens_filtered_from_a_link(browser, site):
    with window(browser, site) as (page, _):
        go(page, site, f"{INDEX}?part=selfsup")
        assert shown(page) == [paper.id for paper in load_registry().papers if paper.part == "selfsup"]


def test_index_is_operated_by_keyboard(index):
    index.locator("[name=text]").focus()
    index.keyboard.type("grokking")
    filtered = shown(index)
    assert 0 < len(filtered) < 20
    for _ in range(4):
        index.keyboard.press("Tab")
    assert index.evaluate("document.activeElement.name") == "clear"
    index.keyboard.press("Enter")
    assert len(shown(index)) == 346


def test_index_links_lead_to_sections(browser, site):
    links = BeautifulSoup((site / INDEX).read_text(), "html.parser").select("article.dla-paper h3 a")
    assert links
    for link in links:
        page, anchor = link["href"].split("#")
        target = BeautifulSoup((site / "book" / page).read_text(), "html.parser")
        assert target.find(id=anchor), link["href"]
