"""Checks of exact facts, and verdicts on measured claims."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dlatlas.lab import cards, statistics
from dlatlas.ops.intervals import CONFIDENCE, mean_interval
from dlatlas.registry import Claim, Support, load_registry

Values = Any  # a tensor, an array or a list of numbers
Effect = tuple[str | None, np.ndarray, np.ndarray | None]  # name of the baseline, values of the method, of the baseline


class CheckFailed(AssertionError):
    """An exact fact does not hold."""


def check(check_id: str, got: Values, expected: Values, *, atol: float = 0.0) -> None:
    """Compare with an exact fact and show the result; see `dlatlas.lab.Run.check`."""
    paper = check_id.partition("/")[0]
    load_registry().paper(paper)
    got, expected = _numbers("got", got), _numbers("expected", expected)
    if got.shape != expected.shape:
        raise CheckFailed(f"{check_id}: got shape {got.shape}, expected shape {expected.shape}")
    deviation = float(np.max(np.abs(got - expected), initial=0.0))
    passed = deviation <= atol
    cards.show_check(
        {"kind": "check", "id": check_id, "paper": paper, "passed": passed, "deviation": deviation, "atol": atol}
    )
    if not passed:
        raise CheckFailed(f"{check_id}: deviation {deviation:.6g} exceeds {atol:.3g}; got {got}, expected {expected}")


def claim(
    claim_id: str, method: Values, baseline: Values | Mapping[str, Values] | None, *, seeds: int, profile: str
) -> str:
    """Judge a measured claim from values over seeds, show the card, return the verdict; see `dlatlas.lab.Run.claim`."""
    registered = load_registry().claim(claim_id)
    _require(registered, "difference", "run.claim_slope")
    effects = _pairs(_over_seeds("method", method, (seeds,)), baseline, (seeds,))
    return _judge(registered, effects, seeds, profile)


def claim_slope(
    claim_id: str,
    x: Values,
    method: Values,
    baseline: Values | Mapping[str, Values] | None,
    *,
    seeds: int,
    profile: str,
) -> str:
    """Judge a claim on the exponent of a power law; see `dlatlas.lab.Run.claim_slope`."""
    registered = load_registry().claim(claim_id)
    _require(registered, "slope", "run.claim")
    x = _positive("x", _numbers("x", x))
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"x must hold at least two sizes, got shape {x.shape}")
    shape = (seeds, len(x))
    pairs = _pairs(_over_seeds("method", method, shape), baseline, shape)
    effects = [
        (name, _slopes("method", x, values), None if other is None else _slopes(f"baseline {name}", x, other))
        for name, values, other in pairs
    ]
    return _judge(registered, effects, seeds, profile)


def _slopes(name: str, x: np.ndarray, values: np.ndarray) -> np.ndarray:
    return statistics.log_slopes(x, _positive(name, values))


def _judge(registered: Claim, effects: list[Effect], seeds: int, profile: str) -> str:
    comparisons = [_compare(registered.support, *effect) for effect in effects]
    verdict = statistics.combine([c["verdict"] for c in comparisons])
    deciding = _least_favourable([c for c in comparisons if c["verdict"] == verdict], *registered.support.region)
    payload = {
        "kind": "claim",
        "id": registered.id,
        "paper": registered.id.partition("/")[0],
        "says": registered.says,
        "measure": registered.measure,
        "support": registered.support.describe(baseline=None if registered.baseline is None else "baseline"),
        "verdict": verdict,
        **{key: deciding[key] for key in ("effect", "low", "high")},
        "confidence": CONFIDENCE,
        "seeds": seeds,
        "profile": profile,
        "comparisons": comparisons,
    }
    cards.show_claim(payload)
    return verdict


def _compare(support: Support, name: str | None, method: np.ndarray, baseline: np.ndarray | None) -> dict[str, Any]:
    """One row of a claim's card. A slope is judged by itself unless the registry asks for the difference of slopes."""
    paired = baseline is not None and support.minus_baseline
    interval = mean_interval(method - baseline if paired else method)
    return {
        "baseline": name,
        "method_mean": float(np.mean(method)),
        "baseline_mean": None if baseline is None else float(np.mean(baseline)),
        "effect": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "verdict": statistics.verdict(interval, *support.region),
    }


def _least_favourable(comparisons: list[dict[str, Any]], low: float, high: float) -> dict[str, Any]:
    """The comparison whose interval has the least room inside the region that counts as support."""
    return min(comparisons, key=lambda row: min(row["low"] - low, high - row["high"]))


def _pairs(method: np.ndarray, baseline: Any, shape: tuple[int, ...]) -> list[Effect]:
    if baseline is None:
        return [(None, method, None)]
    named = baseline if isinstance(baseline, Mapping) else {"baseline": baseline}
    return [(name, method, _over_seeds(f"baseline {name}", values, shape)) for name, values in named.items()]


def _require(registered: Claim, quantity: str, other_call: str) -> None:
    registered_quantity = registered.support.quantity
    if registered_quantity != quantity:
        raise ValueError(
            f"{registered.id} is registered as a claim on a {registered_quantity}; measure it with {other_call}"
        )


def _numbers(name: str, values: Values) -> np.ndarray:
    if isinstance(values, list | tuple):
        values = [v.detach().cpu().numpy() if isinstance(v, torch.Tensor) else v for v in values]
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values, dtype=np.float64)
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} infinite or undefined of {array.size} values")
    return array


def _over_seeds(name: str, values: Values, shape: tuple[int, ...]) -> np.ndarray:
    array = _numbers(name, values)
    if array.shape != shape:
        raise ValueError(
            f"{name} must hold values over the run's {shape[0]} seeds, shape {shape}; got shape {array.shape}"
        )
    return array


def _positive(name: str, array: np.ndarray) -> np.ndarray:
    if not (array > 0).all():
        raise ValueError(f"{name} must be positive, since its logarithm is taken; the smallest is {array.min():.3g}")
    return array
