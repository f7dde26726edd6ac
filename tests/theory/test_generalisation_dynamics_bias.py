"""Facts about the information that a task needs beyond its training data."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ncx2

from dlatlas.theory.generalisation_dynamics_bias import (
    fit_scaled_ncx2,
    inductive_bias,
    posterior_errors,
    posterior_moments,
    saddlepoint_bias,
    sankaran_tail,
)
from tests.examples import Example


def rbf(a, b):
    return torch.exp(-(a[:, None] - b).square().sum(-1) / 2)


def task_of(make):
    return {"x_tr": make.normal(5, 3), "y_tr": make.normal(5, 2), "x_te": make.normal(4, 3), "kernel": rbf}


def tail_of(make):
    return {
        "eps": make.uniform(3, low=0.1),
        "df": make.uniform(1, low=2, high=5)[0],
        "nc": make.uniform(1, low=1, high=3)[0],
    }


EXAMPLES = [
    Example(posterior_moments, task_of, differentiable=("x_tr", "y_tr", "x_te")),
    Example(
        posterior_errors,
        lambda make: {**task_of(make), "y_te": make.normal(4, 2), "noise": make.normal(6, 4, 2)},
        differentiable=("y_tr", "y_te", "noise"),
    ),
    Example(fit_scaled_ncx2, lambda make: {"e": make.uniform(30, low=0.5)}, vmap=False),
    Example(inductive_bias, lambda make: {**tail_of(make), "scale": make.uniform(1, low=0.1)[0]}, vmap=False),
    Example(
        sankaran_tail,
        lambda make: {**tail_of(make), "scale": make.uniform(1, low=0.5)[0]},
        differentiable=("eps", "df", "nc", "scale"),
    ),
    Example(
        saddlepoint_bias,
        lambda make: {
            "eps": make.uniform(3, low=0.1, high=0.5),
            "deviation": 2 + make.uniform(4, 2),
            "covariance": torch.diag(make.uniform(4, low=0.5)),
        },
        differentiable=("eps", "deviation"),
    ),
]


def double(value):
    return torch.tensor(value, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestPosterior:
    def test_passes_through_the_training_data(self):
        x, y = draw(6, 2), draw(6, 2, seed=1)
        mean, covariance = posterior_moments(x, y, x, rbf, jitter=0.0)
        torch.testing.assert_close(mean, y)
        assert covariance.abs().max() < 1e-10

    def test_literal(self):
        x, y, new = draw(5, 2), draw(5, 1, seed=1), draw(3, 2, seed=2)
        K, k = rbf(x, x), rbf(x, new)
        mean, covariance = posterior_moments(x, y, new, rbf, jitter=0.0)
        torch.testing.assert_close(mean, k.T @ torch.linalg.inv(K) @ y)
        torch.testing.assert_close(covariance, rbf(new, new) - k.T @ torch.linalg.inv(K) @ k)

    def test_moments_of_the_errors(self):
        x, y, new, target = draw(5, 3), draw(5, 2, seed=1), draw(4, 3, seed=2), draw(4, 2, seed=3)
        errors = posterior_errors(x, y, new, target, rbf, draw(40_000, 4, 2, seed=4))
        mean, covariance = posterior_moments(x, y, new, rbf)
        gap = mean - target
        expected = gap.square().mean() + covariance.trace() / 4
        variance = (2 * 2 * covariance.square().sum() + 4 * (gap * (covariance @ gap)).sum()) / 64
        assert errors.mean().item() == pytest.approx(expected.item(), rel=0.02)
        assert errors.var().item() == pytest.approx(variance.item(), rel=0.05)

    def test_bad_input(self):
        twice = torch.zeros(3, 2, dtype=torch.float64)
        with pytest.raises(ValueError, match="minor"):
            posterior_moments(twice, twice, twice, rbf, jitter=0.0)
        with pytest.raises(ValueError, match="jitter"):
            posterior_moments(twice, twice, twice, rbf, jitter=-1.0)


class TestFit:
    @pytest.mark.parametrize(("df", "nc", "scale"), [(3, 2, 0.5), (40, 80, 0.02), (400, 1000, 1e-3), (1, 0.5, 7)])
    def test_tail_of_the_truth(self, df, nc, scale):
        truth = ncx2(df, nc, scale=scale)
        sample = torch.tensor(truth.rvs(4000, random_state=0))
        fit = fit_scaled_ncx2(sample)
        eps = torch.tensor(truth.ppf([1e-4, 0.01, 0.5]))
        got = inductive_bias(eps, *fit)
        torch.testing.assert_close(got, -torch.tensor([1e-4, 0.01, 0.5]).double().log(), rtol=0.12, atol=0.02)

    def test_is_at_least_as_likely_as_the_truth(self):
        truth = ncx2(5, 4, scale=0.3)
        sample = truth.rvs(1000, random_state=1)
        df, nc, scale = (v.item() for v in fit_scaled_ncx2(torch.tensor(sample)))
        assert ncx2.logpdf(sample, df, nc, scale=scale).mean() >= truth.logpdf(sample).mean() - 1e-6

    def test_scales_with_the_errors(self):
        sample = torch.tensor(ncx2(5, 4).rvs(500, random_state=1))
        eps = torch.quantile(sample, double([0.01, 0.3]))
        got = inductive_bias(100 * eps, *fit_scaled_ncx2(100 * sample))
        torch.testing.assert_close(got, inductive_bias(eps, *fit_scaled_ncx2(sample)), rtol=1e-3, atol=0)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="number of errors"):
            fit_scaled_ncx2(torch.tensor([1.0, 2.0]))
        with pytest.raises(ValueError, match="variance"):
            fit_scaled_ncx2(torch.ones(10))
        with pytest.raises(ValueError, match="e must"):
            fit_scaled_ncx2(torch.tensor([1.0, 2.0, 0.0, 3.0]))


class TestBias:
    @settings(max_examples=40, deadline=None)
    @given(st.floats(0.5, 60), st.floats(0, 100), st.floats(0.1, 1.5))
    def test_equals_the_library_where_that_is_finite(self, df, nc, ratio):
        eps = ratio * (df + nc) * 0.3
        expected = -ncx2.logcdf(eps, df, nc, scale=0.3) if nc > 0 else -ncx2.logcdf(eps, df, 1e-12, scale=0.3)
        got = inductive_bias(double([eps]), double(df), double(nc), double(0.3)).item()
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-8)

    def test_one_test_point(self):
        mean, s, target = 0.7, 0.4, -0.2
        eps = double([1e-3, 0.1, 1.0])
        ndtr = torch.special.ndtr
        closed = -torch.log(ndtr((target + eps.sqrt() - mean) / s) - ndtr((target - eps.sqrt() - mean) / s))
        got = inductive_bias(eps, double(1.0), double(((mean - target) / s) ** 2), double(s**2))
        torch.testing.assert_close(got, closed)

    def test_does_not_underflow(self):
        eps = double([1e-6, 1e-12])
        got = inductive_bias(eps, double(400.0), double(1000.0), double(1e-3))
        assert torch.isfinite(got).all()
        # The tail goes as eps^(k/2): six decades are 400/2 log(10^6).
        assert (got[1] - got[0]).item() == pytest.approx(200 * 6 * math.log(10), rel=1e-4)

    def test_decreases_and_scales(self):
        eps, args = double([0.1, 1.0, 5.0, 1e9]), (double(5.0), double(2.0))
        bias = inductive_bias(eps, *args, double(0.7))
        assert (bias.diff() < 0).all()
        assert bias[-1] == 0
        torch.testing.assert_close(inductive_bias(9 * eps, *args, double(6.3)), bias)

    def test_bad_input(self):
        for name, args in {
            "eps": ([0.0], 1.0, 1.0, 1.0),
            "df": ([1.0], 0.0, 1.0, 1.0),
            "nc": ([1.0], 1.0, -1.0, 1.0),
            "scale": ([1.0], 1.0, 1.0, 0.0),
        }.items():
            for function in (inductive_bias, sankaran_tail):
                with pytest.raises(ValueError, match=name):
                    function(*map(double, args))


class TestSankaran:
    @pytest.mark.parametrize(("df", "nc"), [(20.0, 5.0), (100.0, 50.0)])
    def test_normal_variable_in_the_moderate_tail(self, df, nc):
        eps = torch.tensor(ncx2.ppf([1e-4, 1e-2], df, nc))
        half_square = sankaran_tail(eps, double(df), double(nc), double(1.0))
        exact = inductive_bias(eps, double(df), double(nc), double(1.0))
        normal = -torch.special.log_ndtr(-(2 * half_square).sqrt())
        torch.testing.assert_close(normal, exact, rtol=0.05, atol=0)
        gap = torch.log((2 * half_square).sqrt() * math.sqrt(2 * math.pi))
        assert ((exact - half_square - gap).abs() < 0.4).all()

    def test_zero_above_the_middle_and_bounded_below(self):
        args = (double(10.0), double(5.0), double(1.0))
        assert sankaran_tail(double(40.0), *args) == 0
        deep = sankaran_tail(double([1e-30, 1e-60]), *args)
        torch.testing.assert_close(deep[0], deep[1])

    def test_dropped_term_at_minus_eight(self):
        assert -torch.special.log_ndtr(double(-8.0)).item() == pytest.approx(35.0134, abs=1e-4)


class TestSaddlepoint:
    @pytest.mark.parametrize("outputs", [1, 3])
    def test_equal_eigenvalues_are_a_scaled_chi_square(self, outputs):
        gap, s2 = draw(8, outputs), 0.6
        n = gap.numel()
        covariance = s2 * torch.eye(8, dtype=torch.float64)
        eps = double([0.02, 0.1, 0.4])
        got = saddlepoint_bias(eps, gap, covariance)
        exact = inductive_bias(eps, double(float(n)), gap.square().sum() / s2, double(s2 / n))
        torch.testing.assert_close(got, exact, rtol=2e-3, atol=0)

    def test_agrees_with_counts(self):
        A = draw(6, 6)
        covariance, gap = A @ A.T / 6, draw(6, 1, seed=1)
        root = torch.linalg.cholesky(covariance)
        errors = (gap + root @ draw(100_000, 6, 1, seed=2)).square().mean((1, 2))
        levels = double([0.01, 0.05, 0.2])
        got = saddlepoint_bias(torch.quantile(errors, levels), gap, covariance)
        torch.testing.assert_close(got, -levels.log(), rtol=0.03, atol=0)

    def test_bad_input(self):
        gap, covariance = draw(3, 1), torch.eye(3, dtype=torch.float64)
        with pytest.raises(ValueError, match="mean error"):
            saddlepoint_bias(double([1e3]), gap, covariance)
        with pytest.raises(ValueError, match="eps"):
            saddlepoint_bias(double([0.0]), gap, covariance)
