"""A small book: the real registry and pages; three chapters and a page of the guide, all made up."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import nbformat
from matplotlib.figure import Figure
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dlatlas.lab.cards import show_claim
from dlatlas.publish.layout import Layout
from dlatlas.registry import Claim, Paper, load_registry

REPOSITORY = Path(__file__).resolve().parents[2]
FINISHED, FAILED, UNEXECUTED = "classification/surrogate_losses", "theory/grokking", "theory/neural_tangent_kernel"
GUIDE = "guide/shapes"
EFFECTS = {"supported": 0.25, "contradicted": -0.25, "inconclusive": 0.05}
VERDICTS = tuple(EFFECTS)
SECRET = "assert theta_hidden == 42"

MESSAGE = "temperature must be positive"

OPENING = r"""# Surrogate losses

Why does minimising cross-entropy minimise mistakes? Inline $\alpha^2$ and

$$
\sum_i \phi(z_i) = {{\tfrac12}} + \phi(1) + \phi(2) + \phi(3) + \phi(4) + \phi(5) + \phi(6) + \phi(7) + \phi(8)
$$ (eq-sum)

which {eq}`eq-sum` says and {cite:t}`comp-sum-losses` prove.
"""
EXERCISES = """{numref}`fig-curve` shows it; so do {numref}`fig-kernel`, {ref}`neural-tangent-kernel`
and {numref}`ex-kernel` of a chapter that was not run.

## Exercises

```{exercise} The answer
:label: ex-answer

Compute it.
```
"""
SOLVED_EXERCISE = """```{exercise}
:label: ex-second

Another.
```

```{solution} ex-second
:class: dropdown

Done.
```
"""
UNEXECUTED_TEXT = """{numref}`fig-kernel` shows it; {numref}`fig-missing`, {numref}`fig-curve`
and [another chapter](../theory/grokking.md) show more.

```{exercise} The kernel
:label: ex-kernel

Compute it.
```
"""
HEADER = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {name: python3, display_name: Python 3, language: python}
---
"""


def make_sample_book(root: Path) -> Layout:
    """Write the book; ``$DLATLAS_BOOK`` must point to ``root / "book"`` while it is used."""
    shutil.copytree(REPOSITORY / "book", root / "book", ignore=shutil.ignore_patterns("records"))
    shutil.copy(REPOSITORY / "_config.yml", root)
    (root / "src").symlink_to(REPOSITORY / "src")
    layout = Layout(root, "cpu")
    _write_text(UNEXECUTED, plain_chapter(), layout)
    for chapter, cells in ((FINISHED, finished_chapter()), (FAILED, failed_chapter()), (GUIDE, guide_page())):
        _write_text(chapter, cells, layout)
        _write_executed(chapter, cells, layout)
    records = [*(chapter_record(name, "cpu", "a laptop") for name in (FINISHED, GUIDE)), failed_record()]
    layout.records.write_text(json.dumps(records))
    machine = layout.machine_records / "h200.json"
    machine.parent.mkdir()
    machine.write_text(json.dumps([chapter_record(FINISHED, "gpu", "NVIDIA H200", seeds=32)]))
    return layout


def _write_text(chapter: str, cells: list[NotebookNode], layout: Layout) -> None:
    text = layout.notebook(chapter)
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(HEADER + "".join(_as_text(cell) for cell in cells))


def _write_executed(chapter: str, cells: list[NotebookNode], layout: Layout) -> None:
    executed = layout.executed(chapter)
    executed.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), executed)


def _as_text(cell: NotebookNode) -> str:
    if cell.cell_type == "markdown":
        return f"\n+++\n\n{cell.source}\n"
    options = f"---\n{json.dumps(cell.metadata)}\n---\n" if cell.metadata else ""
    return f"\n```{{code-cell}} ipython3\n{options}{cell.source}\n```\n"


def chapter_record(chapter: str, profile: str, machine: str, seeds: int = 10) -> dict:
    """Record of a chapter that measured every claim of the papers it holds, the verdicts taken in turn."""
    claims = [claim for paper in load_registry().papers_of(chapter) for claim in paper.claims]
    payloads = [claim_payload(claim, VERDICTS[number % 3], profile, seeds) for number, claim in enumerate(claims)]
    return {
        "chapter": chapter,
        "profile": profile,
        "status": "finished",
        "error": None,
        "run": {"chapter": chapter, "profile": profile, "seeds": seeds, "device": "cpu", "machine": machine},
        "claims": payloads,
        "checks": [],
    }


def failed_record() -> dict:
    """Record of a chapter that measured its claims and then raised."""
    error = {"cell": 2, "name": "ValueError", "message": MESSAGE}
    return chapter_record(FAILED, "cpu", "a laptop") | {"status": "failed", "error": error}


def claim_payload(claim: Claim, verdict: str, profile: str, seeds: int) -> dict:
    """What a cell shows for a claim."""
    centre = EFFECTS[verdict]
    interval = {"effect": centre, "low": centre - 0.1, "high": centre + 0.1, "verdict": verdict}
    return {
        "kind": "claim",
        "id": claim.id,
        "paper": claim.paper,
        "says": claim.says,
        "measure": claim.measure,
        "support": claim.support.describe(),
        "confidence": 0.95,
        "seeds": seeds,
        "profile": profile,
        **interval,
        "comparisons": [{"baseline": "baseline", "method_mean": 0.9, "baseline_mean": 0.65, **interval}],
    }


def card(payload: dict) -> NotebookNode:
    """Output of the cell that shows a claim."""
    with patch("dlatlas.lab.cards.display") as display:
        show_claim(payload)
    return new_output("display_data", display.call_args.args[0])


def finished_chapter() -> list[NotebookNode]:
    """Sections for the papers, a figure, cards of all verdicts, exercises with a hidden test."""
    sections = [
        cell for number, paper in enumerate(load_registry().papers_of(FINISHED)) for cell in _section(paper, number)
    ]
    measured = _sentence("loss = 0.0\nfor x in data:\n    loss += x  # measured\n")
    results = [_table(), measured, _sentence(), _figure("fig-curve")]
    return [new_markdown_cell(OPENING), _parameters(), *sections, *results, *_exercises()]


def failed_chapter() -> list[NotebookNode]:
    """A chapter whose second cell raised, so that the figure after it is not there."""
    error = new_output("error", ename="ValueError", evalue=MESSAGE, traceback=[f"ValueError: {MESSAGE}"])
    missing = new_code_cell("plot()", metadata=_figure_options("fig-missing"))
    reference = new_markdown_cell("{numref}`fig-missing` shows it.")
    cells = [_parameters(), new_code_cell("softmax(-1)", outputs=[error]), missing, reference]
    return [*_headings("Grokking", FAILED), *cells]


def plain_chapter() -> list[NotebookNode]:
    """A chapter that was not run: a figure that it refers to, an exercise, and references to other chapters."""
    figure = new_code_cell("plot()", metadata=_figure_options("fig-kernel"))
    text = new_markdown_cell(UNEXECUTED_TEXT)
    return [*_headings("The neural tangent kernel", UNEXECUTED), _parameters(), figure, text]


def guide_page() -> list[NotebookNode]:
    """A page of the guide that was run: no papers, but a figure that its text refers to."""
    opening = new_markdown_cell("# The shapes world\n\n{numref}`fig-shapes` shows it.")
    return [opening, _parameters(), _figure("fig-shapes")]


def _headings(title: str, chapter: str) -> list[NotebookNode]:
    papers = load_registry().papers_of(chapter)
    return [new_markdown_cell(f"# {title}"), *(new_markdown_cell(f"({p.id})=\n## {p.title}\n\nText.") for p in papers)]


def _parameters() -> NotebookNode:
    return new_code_cell('profile = "cpu"', metadata={"tags": ["parameters"]})


def _section(paper: Paper, number: int) -> Iterator[NotebookNode]:
    yield new_markdown_cell(f"({paper.id})=\n## {paper.title}\n\nText with {{cite:p}}`{paper.id}`.")
    cards = [card(claim_payload(claim, VERDICTS[n % 3], "cpu", 10)) for n, claim in enumerate(paper.claims)]
    yield new_code_cell(f"measure({number})", outputs=cards)


def _table() -> NotebookNode:
    output = new_output("display_data", {"text/markdown": "| tau | loss |\n|---|---|\n| $\\tau = 1$ | 1.39 |\n"})
    return new_code_cell(f"lab.table(columns, rows){' ' * 90}# a long line", outputs=[output])


def _sentence(code: str = "") -> NotebookNode:
    output = new_output("display_data", {"text/markdown": "The loss is 1.39."})
    return new_code_cell(f'{code}display(Markdown(f"The loss is {{loss:.2f}}."))', outputs=[output])


def _figure(name: str) -> NotebookNode:
    figure = Figure(figsize=(4, 2.5), facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.plot([0, 1, 2], [0, 1, 4])
    axes.tick_params(colors="#767676")
    png = io.BytesIO()
    figure.savefig(png, format="png", transparent=True)
    output = new_output("display_data", {"image/png": base64.b64encode(png.getvalue()).decode()})
    return new_code_cell("plot()", metadata=_figure_options(name), outputs=[output])


def _figure_options(name: str) -> dict:
    return {"mystnb": {"figure": {"caption": "A curve.", "name": name}, "image": {"alt": "a curve"}}}


def _exercises() -> Iterator[NotebookNode]:
    yield new_markdown_cell(EXERCISES)
    solution = "def theta():\n    ### BEGIN SOLUTION\n    return 42\n    ### END SOLUTION"
    yield new_code_cell(solution, metadata={"nbgrader": {"grade": False, "solution": True}})
    tests = f"theta_hidden = theta()\n### BEGIN HIDDEN TESTS\n{SECRET}\n### END HIDDEN TESTS\nassert theta()"
    yield new_code_cell(tests, metadata={"nbgrader": {"grade": True, "solution": False}})
    yield new_markdown_cell(SOLVED_EXERCISE)
