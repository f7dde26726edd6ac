"""The cards that a page shows for a run, a check and a claim.

A card carries its numbers under a MIME type of its own. That is the only way from a page to the index, so a number in
the index was computed in the page that shows it. The inline styles are for notebooks, which do not have the book's
style sheet.
"""

from html import escape
from typing import Any

from IPython.display import display

CLAIM_MIME = "application/vnd.dlatlas.claim+json"
RUN_MIME = "application/vnd.dlatlas.run+json"

_COLOURS = {"supported": "#009E73", "contradicted": "#D55E00", "inconclusive": "#767676"}

_CLAIM = """\
<div class="dla-claim dla-{verdict}" style="border-left: 4px solid {colour}; padding: 0.4em 1em; margin: 1em 0">
<p><span class="dla-verdict" style="color: {colour}; font-weight: bold">{title}</span>
<code>{id}</code> · {seeds} seeds · profile {profile}</p>
<p class="dla-says"><em>{says}</em></p>
<p class="dla-measure">Measured: {measure}. Counts as support: {support}.</p>
<table class="dla-numbers">
<thead><tr><th>against</th><th>method</th><th>baseline</th><th>effect</th><th>95% interval</th><th>verdict</th></tr>
</thead>
<tbody>
{rows}
</tbody>
</table>
</div>"""

_ROW = """\
<tr><td>{baseline}</td><td>{method_mean}</td><td>{baseline_mean}</td><td>{effect}</td><td>[{low}, {high}]</td>\
<td>{verdict}</td></tr>"""

_CHECK = """\
<div class="dla-check {outcome}"><span style="color: {colour}; font-weight: bold">{mark}</span>
<code>{id}</code> deviation {deviation}, allowed {atol}</div>"""


def show_run(facts: dict[str, Any], line: str) -> None:
    """Show one line on the machine; ``facts`` travel with it."""
    display({RUN_MIME: facts, "text/plain": line}, raw=True)


def show_claim(payload: dict[str, Any]) -> None:
    """Show a claim with its verdict and the numbers behind it."""
    _show(payload, _claim_html(payload), _claim_text(payload))


def show_check(payload: dict[str, Any]) -> None:
    """Show whether an exact fact holds."""
    mark = "✓" if payload["passed"] else "✗"
    as_text = f"{mark} {payload['id']}: deviation {payload['deviation']:.3g}, allowed {payload['atol']:.3g}"
    as_html = _CHECK.format(
        outcome="dla-passed" if payload["passed"] else "dla-failed",
        colour=_COLOURS["supported" if payload["passed"] else "contradicted"],
        mark=mark,
        id=escape(payload["id"]),
        deviation=_number(payload["deviation"]),
        atol=_number(payload["atol"]),
    )
    _show(payload, as_html, as_text)


def _show(payload: dict[str, Any], as_html: str, as_text: str) -> None:
    display({CLAIM_MIME: payload, "text/html": as_html, "text/plain": as_text}, raw=True)


def _claim_text(payload: dict[str, Any]) -> str:
    heading = f"{payload['verdict'].upper()} {payload['id']} ({payload['seeds']} seeds, {payload['profile']})"
    rows = [
        f"  {row['baseline'] or payload['support']}: "
        f"{row['effect']:.3g} [{row['low']:.3g}, {row['high']:.3g}] {row['verdict']}"
        for row in payload["comparisons"]
    ]
    return "\n".join([heading, *rows])


def _claim_html(payload: dict[str, Any]) -> str:
    numbers = ("method_mean", "baseline_mean", "effect", "low", "high")
    rows = [
        _ROW.format(
            baseline=escape(row["baseline"] or "—"),
            verdict=row["verdict"],
            **{name: _number(row[name]) for name in numbers},
        )
        for row in payload["comparisons"]
    ]
    return _CLAIM.format(
        colour=_COLOURS[payload["verdict"]],
        title=payload["verdict"].capitalize(),
        rows="\n".join(rows),
        **{name: payload[name] for name in ("verdict", "id", "seeds", "profile")},
        **{name: escape(payload[name]).rstrip(".") for name in ("says", "measure", "support")},
    )


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}".replace("-", "−")
