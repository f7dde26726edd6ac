"""Measuring with pytest-benchmark: `make bench` runs everything here and ends with one table.

A *duel* is one computation done twice, by this library and by what a reader would otherwise take. Both get the same
inputs on the same device in the same run, and their values are compared before anything is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch.utils import _pytree as pytree

from tests.benchmarks.memory import peak_mb

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIDES = ("ours", "theirs")


@dataclass(frozen=True)
class Duel:
    """Two ways to compute one thing.

    Parameters
    ----------
    name, peer
        What is computed, and who else computes it.
    make
        Maps a device to the two computations, in the order of ``SIDES``; each returns a tensor or a tree of tensors.
    deviation
        Largest relative difference of the values, in the Euclidean norm.
    """

    name: str
    peer: str
    make: Callable[[torch.device], tuple[Callable[[], Any], Callable[[], Any]]]
    deviation: float = 1e-4


@dataclass(frozen=True)
class Measured:
    """Median seconds of one call, and the memory that it adds at its peak."""

    seconds: float
    memory_mb: float


RESULTS = pytest.StashKey[dict[tuple[str, str], dict[str, Measured]]]()
NOTES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS], config.stash[NOTES] = {}, {}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def fight(benchmark, request: pytest.FixtureRequest, device: torch.device) -> Callable[[Duel, str], None]:
    """Compare the values of a duel, then measure one side of it."""

    def measure(duel: Duel, side: str) -> None:
        torch.manual_seed(0)
        ours, theirs = duel.make(device)
        assert deviation(ours(), theirs()) <= duel.deviation
        work = settled({"ours": ours, "theirs": theirs}[side], device)
        memory = peak_mb(work, device)
        benchmark.group = f"{duel.name} ({device})"
        benchmark(work)
        found = request.config.stash[RESULTS].setdefault((benchmark.group, duel.peer), {})
        found[side] = Measured(benchmark.stats.stats.median, memory)

    return measure


@pytest.fixture
def seconds(benchmark, request: pytest.FixtureRequest) -> Callable[..., float]:
    """Median seconds of a call that has no peer; ``about`` turns them into what the table says."""

    def measure(name: str, work: Callable[[], Any], about: Callable[[float], str], rounds: int = 5) -> float:
        benchmark.group = name
        benchmark.pedantic(work, rounds=rounds)
        median = benchmark.stats.stats.median
        request.config.stash[NOTES][name] = about(median)
        return median

    return measure


def settled(work: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """The computation with the wait for a GPU to finish it."""

    def call() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return call


def deviation(ours: Any, theirs: Any) -> float:
    """Largest relative difference between the leaves of two trees, in the Euclidean norm."""
    pairs = zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


def pytest_terminal_summary(config: pytest.Config) -> None:
    if duels := config.stash[RESULTS]:
        Console(width=150).print(duel_table(duels))
    if notes := config.stash[NOTES]:
        table = Table("what", "measured")
        for row in notes.items():
            table.add_row(*row)
        Console(width=150).print(table)


def duel_table(duels: dict[tuple[str, str], dict[str, Measured]]) -> Table:
    """Time and memory of both sides; a ratio above 1 says that the peer takes more."""
    table = Table("what", "peer", "ours (ms)", "peer (ms)", "time ratio", "ours (MB)", "peer (MB)", "memory ratio")
    for (name, peer), sides in duels.items():
        if set(sides) == set(SIDES):
            ours, theirs = sides["ours"], sides["theirs"]
            time, memory = theirs.seconds / ours.seconds, theirs.memory_mb / max(ours.memory_mb, 1.0)
            milliseconds = (f"{1e3 * side.seconds:.2f}" for side in (ours, theirs))
            megabytes = (f"{side.memory_mb:.0f}" for side in (ours, theirs))
            table.add_row(name, peer, *milliseconds, f"{time:.2f}", *megabytes, f"{memory:.2f}")
    return table
