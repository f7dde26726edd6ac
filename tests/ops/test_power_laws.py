"""Facts of `dlatlas.ops.power_laws`."""

import numpy as np
import pytest
import torch
from scipy import stats

from dlatlas.ops.power_laws import PowerLawFit, exponent_interval, fit_power_law, power_law
from tests.examples import Example, Make


def points(make: Make) -> dict:
    return {"x": make.uniform(7, low=1.0, high=50.0), "y": make.uniform(7, low=1.0, high=3.0)}


EXAMPLES = [
    Example(
        power_law,
        lambda make: {"x": make.uniform(3, 2, low=1.0, high=9.0), "scale": 3.0, "exponent": 0.4, "offset": 0.5},
        differentiable=("x",),
    ),
    Example(fit_power_law, points, differentiable=("x", "y")),
    Example(fit_power_law, lambda make: {**points(make), "offset": make.uniform(7)}, differentiable=("y", "offset")),
    Example(
        exponent_interval,
        lambda make: {"fit": PowerLawFit(*(make.uniform(4, low=0.1).unbind())), "n": 6},
        vmap=False,
    ),
]


@pytest.fixture
def cloud():
    g = torch.Generator().manual_seed(3)
    x = torch.linspace(0, 6, 30, dtype=torch.float64).exp()
    return x, (40 / x) ** 0.7 * torch.exp(0.3 * torch.randn(30, generator=g, dtype=torch.float64))


def test_law_is_one_above_its_offset_at_its_scale():
    x = torch.tensor([5.0], dtype=torch.float64)
    torch.testing.assert_close(power_law(x, 5.0, 0.3, 2.0), torch.tensor([3.0], dtype=torch.float64))


@pytest.mark.parametrize("exponent", [0.05, 0.7, -1.3])
@pytest.mark.parametrize("offset", [None, 0.4])
def test_points_on_a_law_give_it_back(exponent, offset):
    x = torch.tensor([1.0, 3.0, 20.0, 500.0], dtype=torch.float64)
    fit = fit_power_law(x, power_law(x, 7.0, exponent, offset or 0.0), offset)
    torch.testing.assert_close(fit.scale.item(), 7.0, rtol=1e-8, atol=0)
    torch.testing.assert_close(fit.exponent.item(), exponent, rtol=1e-10, atol=0)
    assert fit.exponent_error < 1e-10


def test_line_and_standard_errors_are_those_of_scipy(cloud):
    x, y = cloud
    expected = stats.linregress(np.log(x.numpy()), np.log(y.numpy()))
    fit = fit_power_law(x, y)
    assert fit.exponent.item() == pytest.approx(-expected.slope)
    assert fit.exponent_error.item() == pytest.approx(expected.stderr)
    assert (fit.exponent * fit.scale.log()).item() == pytest.approx(expected.intercept)


def test_error_of_the_scale_is_that_of_repeated_fits():
    g = torch.Generator().manual_seed(0)
    x = torch.linspace(2, 5, 20, dtype=torch.float64).exp()
    law = power_law(x, 10.0, 0.6)
    noise = torch.exp(0.05 * torch.randn(600, 20, generator=g, dtype=torch.float64))
    fits = [fit_power_law(x, law * factor) for factor in noise]
    scattered = torch.stack([fit.scale.log() for fit in fits]).std()
    claimed = torch.stack([fit.log_scale_error for fit in fits]).mean()
    torch.testing.assert_close(scattered, claimed, rtol=0.1, atol=0)


def test_interval_covers_the_exponent_as_often_as_it_says():
    g = torch.Generator().manual_seed(1)
    x = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    hits = 0
    for _ in range(400):
        y = power_law(x, 10.0, 0.6) * torch.exp(0.2 * torch.randn(5, generator=g, dtype=torch.float64))
        low, high = exponent_interval(fit_power_law(x, y), 5, confidence=0.8)
        hits += int(low <= 0.6 <= high)
    assert 0.74 < hits / 400 < 0.86


@pytest.mark.parametrize(
    ("x", "y", "offset"),
    [
        ([1.0, 2.0], [1.0, 2.0], None),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], None),
        ([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], None),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], 1.5),
        ([1.0, 2.0, 3.0], [3.0, float("nan"), 1.0], None),
    ],
)
def test_points_that_no_law_can_have_are_refused(x, y, offset):
    with pytest.raises(ValueError, match="must"):
        fit_power_law(torch.tensor(x), torch.tensor(y), offset)


def test_size_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="x must"):
        power_law(torch.tensor([0.0, 1.0]), 1.0, 1.0)


def test_confidence_must_be_a_probability(cloud):
    with pytest.raises(ValueError, match="confidence"):
        exponent_interval(fit_power_law(*cloud), 30, confidence=1.5)
