"""From numbers over seeds to an interval and a verdict."""

import numpy as np

from dlatlas.ops.intervals import Interval

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"


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
