import numpy as np
import pytest
from scipy import stats

from dlatlas.lab.statistics import combine, log_slopes, verdict
from dlatlas.ops.intervals import Interval, mean_interval


def test_log_slope_recovers_a_power_law():
    x = np.array([16.0, 64.0, 256.0])
    y = np.array([[3.0], [0.2]]) * x ** np.array([[-0.5], [1.5]])
    assert log_slopes(x, y) == pytest.approx([-0.5, 1.5])


@pytest.mark.parametrize(
    ("interval", "region", "expected"),
    [
        ((0.1, 0.3), (0, np.inf), "supported"),
        ((-0.1, 0.3), (0, np.inf), "inconclusive"),
        ((-0.3, -0.1), (0, np.inf), "contradicted"),
        ((0.0, 0.0), (0, np.inf), "inconclusive"),
        ((-0.3, -0.1), (-np.inf, 0), "supported"),
        ((0.0, 0.0), (-1e-9, 1e-9), "supported"),
        ((-0.05, 0.05), (-0.1, 0.1), "supported"),
        ((-0.05, 0.15), (-0.1, 0.1), "inconclusive"),
        ((0.15, 0.2), (-0.1, 0.1), "contradicted"),
    ],
)
def test_verdict(interval, region, expected):
    low, high = interval
    assert verdict(Interval((low + high) / 2, low, high), *region) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "inconclusive", "contradicted"], "contradicted"),
    ],
)
def test_a_claim_must_hold_against_every_baseline(verdicts, expected):
    assert combine(verdicts) == expected


def simulate(effect: float, seed: int, experiments: int = 1000, seeds: int = 10) -> list[str]:
    """Verdicts on "higher" for paired differences of a given true effect, in units of their standard deviation."""
    draws = np.random.default_rng(seed).normal(loc=effect, size=(experiments, seeds))
    return [verdict(mean_interval(d), 0, np.inf) for d in draws]


def test_a_true_effect_is_found():
    assert simulate(effect=1.5, seed=2).count("supported") > 980


def test_a_null_is_inconclusive_19_times_in_20():
    inconclusive = simulate(effect=0.0, seed=3).count("inconclusive")
    assert stats.binomtest(inconclusive, 1000, 0.95).pvalue > 0.001


def test_a_reversed_effect_is_contradicted():
    assert simulate(effect=-1.5, seed=4).count("contradicted") > 980
