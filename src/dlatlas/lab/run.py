"""A run of a chapter: its profile, seeds, device and sizes, and the judge of its checks and claims."""

import os
import platform
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from dlatlas import plots
from dlatlas.lab import cards, claims
from dlatlas.registry import load_registry

T = TypeVar("T")

SEEDS = {"smoke": 2, "cpu": 10, "gpu": 32}
SMOKE_STEPS = 5


@dataclass(frozen=True)
class Run:
    """What a chapter asks instead of asking which machine it is on.

    Attributes
    ----------
    chapter
        Part and name, such as ``"theory/grokking"``.
    profile
        ``"smoke"`` (does it run), ``"cpu"`` (the default), or ``"gpu"``.
    seeds
        How many seeds every arm has, S.
    device
        Where the tensors live.
    """

    chapter: str
    profile: str
    seeds: int
    device: torch.device

    def pick(self, *, smoke: T, cpu: T, gpu: T) -> T:
        """The size for this profile."""
        return {"smoke": smoke, "cpu": cpu, "gpu": gpu}[self.profile]

    def steps(self, count: int) -> int:
        """``count`` training steps, or a handful in the smoke profile."""
        return min(count, SMOKE_STEPS) if self.profile == "smoke" else count

    def generator(self, name: str, seed: int = 0) -> torch.Generator:
        """A CPU random generator that depends on the name and the seed alone."""
        return torch.Generator().manual_seed((zlib.crc32(name.encode()) << 16) + seed)

    def stack(self, draw: Callable[[torch.Generator], Any], name: str = "data") -> Any:
        """Draw once for every seed and stack: tensors (...) become (S, ...) on the run's device."""
        draws = [draw(self.generator(name, seed)) for seed in range(self.seeds)]
        return pytree.tree_map(lambda *leaves: torch.stack(leaves).to(self.device), *draws)

    def check(self, check_id: str, got: Any, expected: Any, *, atol: float = 0.0) -> None:
        """Compare with an exact fact and show the result.

        Parameters
        ----------
        check_id
            ``"<paper id>/<name of the fact>"``; the paper must be in the registry.
        got, expected
            Numbers, booleans or tensors of one shape.
        atol
            Largest absolute difference allowed.

        Raises
        ------
        CheckFailed
            Where the fact does not hold: the page stops here.
        """
        claims.check(check_id, got, expected, atol=atol)

    def claim(self, claim_id: str, *, method: Any, baseline: Any | Mapping[str, Any] | None = None) -> str:
        """Judge a measured claim and show its card.

        The effect of a seed is method minus baseline (or the method's value where there is no baseline); the registry
        says which effects count as support. The claim is supported where the 95% interval of the mean effect lies
        inside that region, contradicted where it lies outside, else inconclusive. Against several baselines it must be
        supported against each.

        Parameters
        ----------
        claim_id
            A claim in the registry.
        method
            One number a seed, shape (S,).
        baseline
            The same for the baseline, or a mapping from names of baselines to such values.

        Returns
        -------
        The verdict.

        Raises
        ------
        ValueError
            Values that are not finite, or not one a seed.
        RegistryError
            An id that the registry does not have.
        """
        return claims.claim(claim_id, method, baseline, seeds=self.seeds, profile=self.profile)

    def claim_slope(
        self, claim_id: str, *, x: Any, method: Any, baseline: Any | Mapping[str, Any] | None = None
    ) -> str:
        """Judge a scaling statement: like `claim`, for the slope of log value on log size.

        Parameters
        ----------
        claim_id
            A claim on a slope in the registry.
        x
            Sizes, shape (m,), positive.
        method, baseline
            Positive values, shape (S, m). The baseline's slope is subtracted where the registry says so, and shown for
            comparison otherwise.
        """
        return claims.claim_slope(claim_id, x, method, baseline, seeds=self.seeds, profile=self.profile)


def start(profile: str, chapter: str) -> Run:
    """Begin a chapter: choose seeds, device and figure style for the profile, and print one line on the machine.

    Raises
    ------
    ValueError
        An unknown profile, or the gpu profile where there is no GPU.
    UnknownEntry
        An unknown chapter.
    """
    if profile not in SEEDS:
        raise ValueError(f"unknown profile {profile!r}; the profiles are {', '.join(SEEDS)}")
    load_registry().page(chapter)
    if profile == "gpu" and not torch.cuda.is_available():
        raise ValueError("profile 'gpu' needs a CUDA device, and torch sees none; use 'cpu'")
    device = torch.device("cuda" if profile == "gpu" else "cpu")
    _be_deterministic()
    plots.use_style()
    run = Run(chapter, profile, SEEDS[profile], device)
    _introduce(run)
    return run


def _be_deterministic() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Determinism does not need new memory to be filled with NaN, which takes 4% of a training of small networks.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(0)


def _introduce(run: Run) -> None:
    machine = torch.cuda.get_device_name() if run.device.type == "cuda" else _processor()
    facts = {
        "chapter": run.chapter,
        "profile": run.profile,
        "seeds": run.seeds,
        "device": run.device.type,
        "machine": machine,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    threads = f"{facts['threads']} thread{'' if facts['threads'] == 1 else 's'}"
    line = (
        f"{run.chapter} · profile {run.profile} · {run.seeds} seeds · {machine}, {threads} · "
        f"torch {facts['torch']} · Python {facts['python']}"
    )
    cards.show_run(facts, line)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            return next(line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
