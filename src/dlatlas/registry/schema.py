"""The records of the registry: parts, chapters, papers, claims, and the outcomes that support a claim."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_serializer, model_validator

Kind = Literal[
    "algorithm",
    "architecture",
    "benchmark",
    "loss",
    "measurement",
    "metric",
    "phenomenon",
    "regulariser",
    "survey",
    "theory",
]
Source = Literal["read", "known", "reconstructed"]
Status = Literal["planned", "written"]

_SLUG = r"[a-z0-9]+(-[a-z0-9]+)*"
_NAME = r"[a-z0-9]+(_[a-z0-9]+)*"
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
PaperId = Annotated[str, StringConstraints(pattern=rf"^{_SLUG}$")]
ClaimId = Annotated[str, StringConstraints(pattern=rf"^{_SLUG}/{_SLUG}$")]
PartName = Annotated[str, StringConstraints(pattern=rf"^{_NAME}$")]
GuidePageName = Annotated[str, StringConstraints(pattern=rf"^guide/{_NAME}$")]
ChapterName = Annotated[str, StringConstraints(pattern=rf"^{_NAME}/{_NAME}$")]
DottedName = Annotated[str, StringConstraints(pattern=r"^dlatlas(\.[A-Za-z_]\w*)+$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Support(_Record):
    """The outcomes that support a claim: an open interval for the effect.

    Written as ``higher``, ``lower``, ``{equal: m}``, ``{between: [lo, hi]}`` or ``{slope: [lo, hi]}``, where
    ``null`` leaves a side open. With ``of: difference`` beside ``slope``, the effect is the slope of the method minus
    that of the baseline.
    """

    written: str | dict[str, Any]
    quantity: Literal["difference", "slope"]
    low: float
    high: float
    minus_baseline: bool

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, written: Any) -> dict[str, Any]:
        low, high = _support_interval(written)
        if not low < high:
            raise ValueError(f"expected an interval with low < high, got ({low:g}, {high:g})")
        slope = isinstance(written, dict) and "slope" in written
        return {
            "written": written,
            "quantity": "slope" if slope else "difference",
            "low": low,
            "high": high,
            "minus_baseline": not slope or "of" in written,
        }

    @model_serializer
    def _as_written(self) -> Any:
        return self.written

    @property
    def region(self) -> tuple[float, float]:
        """Open interval in which the effect must lie."""
        return self.low, self.high

    def describe(self, *, method: str = "method", baseline: str | None = "baseline") -> str:
        """Say the region in symbols, for instance ``method − baseline > 0``.

        Parameters
        ----------
        method, baseline
            Names of the two arms; ``baseline=None`` when the claim has none.
        """
        arms = [method, baseline] if baseline is not None and self.minus_baseline else [method]
        effect = " − ".join(f"slope({arm})" if self.quantity == "slope" else arm for arm in arms)
        if self.low == -self.high:
            return f"|{effect}| < {self.high:g}"
        if math.isinf(self.high):
            return f"{effect} > {self.low:g}"
        if math.isinf(self.low):
            return f"{effect} < {self.high:g}"
        return f"{self.low:g} < {effect} < {self.high:g}"


def _support_interval(written: Any) -> tuple[float, float]:
    match written:
        case "higher":
            return 0.0, math.inf
        case "lower":
            return -math.inf, 0.0
        case {"equal": margin, **rest} if not rest:
            margin = _number(margin)
            return -margin, margin
        case {"between": [low, high], **rest} if not rest:
            return _bounds(low, high)
        case {"slope": [low, high], **rest} if rest in ({}, {"of": "difference"}):
            return _bounds(low, high)
    raise ValueError(
        "expected higher, lower, {equal: margin}, {between: [low, high]}, {slope: [low, high]} "
        f"or {{slope: [low, high], of: difference}}, got {written!r}"
    )


def _bounds(low: Any, high: Any) -> tuple[float, float]:
    if low is None and high is None:
        raise ValueError("an interval open on both sides cannot fail: give at least one bound")
    return -math.inf if low is None else _number(low), math.inf if high is None else _number(high)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return float(value)


class Cite(_Record):
    """Where a paper was published; only what was verified, ``None`` elsewhere."""

    authors: tuple[Text, ...] | None
    year: int | None = Field(ge=1900, le=2100)
    venue: Text | None
    arxiv: Text | None
    doi: Text | None


class Claim(_Record):
    """A falsifiable statement: what is measured, against what, and which outcome supports it."""

    id: ClaimId
    says: Text
    measure: Text
    method: Text
    baseline: Text | None
    data: Text
    expect: Text
    support: Support
    note: Text | None

    @property
    def paper(self) -> str:
        """Id of the paper that makes the claim."""
        return self.id.partition("/")[0]

    @model_validator(mode="after")
    def _has_arms(self) -> "Claim":
        if self.baseline is None and isinstance(self.support.written, dict) and "of" in self.support.written:
            raise ValueError("support is about a difference of slopes, but the claim has no baseline")
        return self


class Paper(_Record):
    """One row: a paper, where it lives in the book, and its claims."""

    id: PaperId
    n: int = Field(ge=0)
    title: Text
    cite: Cite
    chapter: ChapterName
    kind: Kind
    source: Source
    repo: Text | None
    implements: tuple[DottedName, ...]
    status: Status
    claims: tuple[Claim, ...] = Field(min_length=1)

    @property
    def part(self) -> str:
        """Name of the part that holds the paper."""
        return self.chapter.partition("/")[0]


class Chapter(_Record):
    """A page of the book: one question, and its papers in reading order."""

    chapter: ChapterName
    title: Text
    question: Text
    papers: tuple[PaperId, ...] = Field(min_length=1)

    @property
    def part(self) -> str:
        """Name of the part that holds the chapter."""
        return self.chapter.partition("/")[0]


class Part(_Record):
    """A part of the book: its chapters in order."""

    part: PartName
    title: Text
    chapters: tuple[Chapter, ...] = Field(min_length=1)


class GuidePage(_Record):
    """A page on how to use the book; it has no papers. It is text, or a notebook that is run as the chapters are."""

    page: GuidePageName
    title: Text
    run: bool = False
    papers: ClassVar[tuple[PaperId, ...]] = ()
