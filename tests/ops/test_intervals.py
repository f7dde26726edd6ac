"""Intervals of means over seeds."""

import numpy as np
import pytest
import torch
from scipy import stats

from dlatlas.ops.intervals import Interval, mean_interval
from tests.examples import Example

EXAMPLES = [Example(mean_interval, lambda make: {"values": make.normal(5, 3)}, vmap=False)]


def test_interval_is_scipys_t_interval():
    values = np.random.default_rng(0).normal(size=10)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    interval = mean_interval(values, confidence=0.9)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.reach == pytest.approx((expected.high - expected.low) / 2)


def test_interval_covers_the_mean_19_times_in_20():
    draws = np.random.default_rng(1).normal(loc=0.3, size=(2000, 10))
    covered = [i.low < 0.3 < i.high for i in map(mean_interval, draws)]
    assert stats.binomtest(sum(covered), len(covered), 0.95).pvalue > 0.001


def test_each_column_has_its_own_interval():
    values = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    interval = mean_interval(values)
    assert interval.mean.shape == interval.low.shape == interval.reach.shape == (3, 2)
    one = mean_interval(values[:, 2, 1])
    assert (one.mean, one.low, one.high) == pytest.approx(
        [v[2, 1] for v in (interval.mean, interval.low, interval.high)]
    )


def test_numbers_are_floats_and_written_with_their_ends():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert {type(v) for v in (interval.mean, interval.low, interval.high)} == {float}
    assert f"{interval:.2f}" == "2.00 [-0.48, 4.48]"
    assert f"{Interval(0.5, 0.25, 0.75)}" == "0.5 [0.25, 0.75]"


@pytest.mark.parametrize("values", [[1.0], 1.0, []], ids=str)
def test_fewer_than_two_seeds_are_refused(values):
    with pytest.raises(ValueError, match="number of seeds must be at least 2, got"):
        mean_interval(values)


def test_a_confidence_is_a_probability():
    with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\], got 95"):
        mean_interval([1.0, 2.0], confidence=95)
