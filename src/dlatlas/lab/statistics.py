"""From numbers over seeds to an interval and a verdict."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """Student's t interval of the mean of independent values, shape (S,) with S >= 2."""
    mean = float(np.mean(values))
    error = float(stats.sem(values))
    reach = error * float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return Interval(mean, mean - reach, mean + reach)


def log_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Exponents of power laws: the least-squares slope of log y on log x for each seed.

    Parameters
    ----------
    x
        Sizes, (m,), positive.
    y
        Values, (S, m), positive.

    Returns
    -------
    One slope a seed, (S,).
    """
    log_x = np.log(x) - np.log(x).mean()
    return np.log(y) @ log_x / (log_x @ log_x)


def verdict(interval: Interval, low: float, high: float) -> str:
    """Compare an interval with the open region (low, high) that counts as support.

    The whole interval inside the region: supported. The whole interval beyond one of its ends: contradicted. Otherwise
    inconclusive, so an effect of exactly zero neither supports nor contradicts a direction.
    """
    if low < interval.low and interval.high < high:
        return SUPPORTED
    return CONTRADICTED if interval.high < low or interval.low > high else INCONCLUSIVE


def combine(verdicts: list[str]) -> str:
    """The verdict against several baselines: a claim must hold against each, and fails if it fails against any."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return INCONCLUSIVE if INCONCLUSIVE in verdicts else SUPPORTED
