"""What was measured, read from the records of this build and from the committed records of named machines."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlatlas.publish.files import read_json
from dlatlas.publish.layout import Layout
from dlatlas.registry import Paper

# From least to most favourable: a paper stands as its least favourable claim does.
VERDICTS = ("contradicted", "inconclusive", "supported")


@dataclass(frozen=True)
class Measurement:
    """One claim as one run measured it."""

    claim: str
    verdict: str
    effect: float
    low: float
    high: float
    seeds: int
    profile: str
    machine: str | None

    @property
    def where(self) -> str:
        """Profile, and the machine when it is not the one that built the site."""
        return self.profile if self.machine is None else f"{self.profile}, {self.machine}"


@dataclass(frozen=True)
class Results:
    """Chapter records of this build by chapter, and all measurements by claim, those of this build first."""

    profile: str
    chapters: Mapping[str, Mapping[str, Any]]
    measurements: Mapping[str, tuple[Measurement, ...]]

    def of(self, claim: str) -> tuple[Measurement, ...]:
        """Measurements of a claim; empty when it was not measured."""
        return self.measurements.get(claim, ())

    def verdict(self, claim: str) -> str | None:
        """Verdict of a claim in this build, else on the first machine that measured it."""
        return next((m.verdict for m in self.of(claim)), None)

    def standing(self, paper: Paper) -> str | None:
        """Least favourable verdict among the measured claims of a paper."""
        found = {self.verdict(claim.id) for claim in paper.claims}
        return next((verdict for verdict in VERDICTS if verdict in found), None)

    def failed(self, chapter: str) -> bool:
        """Whether the chapter raised in this build."""
        return self.chapters.get(chapter, {}).get("status") == "failed"

    def tally(self, papers: Iterable[Paper]) -> "Tally":
        """Counts over papers and their claims."""
        papers = list(papers)
        verdicts = Counter(self.verdict(claim.id) for paper in papers for claim in paper.claims)
        measured = sum(self.standing(paper) is not None for paper in papers)
        return Tally(len(papers), measured, {verdict: verdicts[verdict] for verdict in reversed(VERDICTS)})


@dataclass(frozen=True)
class Tally:
    """How many papers there are, how many were measured, and claims by verdict."""

    papers: int
    measured: int
    claims: Mapping[str, int]

    @property
    def measured_claims(self) -> int:
        """Claims with a verdict."""
        return sum(self.claims.values())


def read_results(layout: Layout) -> Results:
    """Read the records of a build and of the named machines."""
    chapters = {record["chapter"]: record for record in _read(layout.records)}
    measurements: dict[str, list[Measurement]] = {}
    for record in chapters.values():
        _collect(record, None, measurements)
    for file in sorted(layout.machine_records.glob("*.json")):
        for record in _read(file):
            _collect(record, record["run"]["machine"], measurements)
    return Results(layout.profile, chapters, {claim: tuple(found) for claim, found in measurements.items()})


def _read(file: Path) -> list[dict[str, Any]]:
    return read_json(file) if file.is_file() else []


def _collect(record: Mapping[str, Any], machine: str | None, into: dict[str, list[Measurement]]) -> None:
    for claim in record["claims"]:
        fields = {name: claim[name] for name in ("verdict", "effect", "low", "high", "seeds", "profile")}
        into.setdefault(claim["id"], []).append(Measurement(claim=claim["id"], machine=machine, **fields))
