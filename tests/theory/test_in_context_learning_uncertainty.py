"""Facts about means and variances in context (theory/in_context_learning)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn.linear_model import LinearRegression

from dlatlas.theory.in_context_learning_uncertainty import (
    gaussian_nll,
    icl_generalisation_rate,
    nig_posterior_predictive,
    ols_predictive,
)
from tests.examples import Example, Make


def prompt(make: Make) -> dict:
    return {"X": make.normal(4, 7, 3), "y": make.normal(4, 7), "xq": make.normal(4, 3)}


EXAMPLES = [
    Example(
        gaussian_nll,
        lambda make: {"mu": make.normal(3, 5), "sigma": make.uniform(3, 5, low=0.5, high=2), "y": make.normal(3, 5)},
        differentiable=("mu", "sigma", "y"),
    ),
    Example(
        nig_posterior_predictive,
        lambda make: {**prompt(make), "k0": 0.5, "a0": 3.0, "b0": 2.0},
        differentiable=("X", "y", "xq"),
    ),
    Example(ols_predictive, prompt, differentiable=("X", "y", "xq")),
    Example(icl_generalisation_rate, lambda make: {"tasks": 4, "length": 9, "window": 3}, vmap=False),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestLoss:
    @settings(deadline=None, max_examples=50)
    @given(error=st.floats(0.01, 100))
    def test_the_best_standard_deviation_is_the_error(self, error):
        y, mu = torch.tensor([error], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        sigma = torch.tensor([error], dtype=torch.float64)
        assert gaussian_nll(mu, sigma, y).item() == pytest.approx(math.log(error) + 0.5)
        assert abs(torch.func.grad(gaussian_nll, argnums=1)(mu, sigma, y).item()) < 1e-10 / error

    def test_equals_the_density(self, generator):
        mu, sigma, y = normal(generator, 9), normal(generator, 9).exp(), normal(generator, 9)
        density = torch.distributions.Normal(mu, sigma).log_prob(y).mean()
        torch.testing.assert_close(gaussian_nll(mu, sigma, y) + math.log(2 * math.pi) / 2, -density)

    def test_refuses(self):
        with pytest.raises(ValueError, match="sigma must lie"):
            gaussian_nll(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.zeros(2))
        with pytest.raises(ValueError, match="sigma must lie"):
            gaussian_nll(torch.zeros(2), torch.tensor([1.0, -1.0]), torch.zeros(2))
        with pytest.raises(TypeCheckError):
            gaussian_nll(torch.zeros(2), torch.ones(2), torch.zeros(3))


class TestPosterior:
    def test_without_examples_it_is_the_prior(self, generator):
        xq = normal(generator, 5, 3)
        mean, var = nig_posterior_predictive(normal(generator, 5, 0, 3), normal(generator, 5, 0), xq, 0.5, 3.0, 2.0)
        assert mean.abs().max() == 0
        torch.testing.assert_close(var, 2 / 2 * (1 + xq.square().sum(-1) / 0.5))

    def test_sequential_updates_equal_the_batch(self, generator):
        X, y, xq = normal(generator, 12, 3), normal(generator, 12), normal(generator, 3)
        k0, a, b = 0.5, 3.0, 2.0
        V, m = torch.eye(3, dtype=torch.float64) / k0, torch.zeros(3, dtype=torch.float64)
        for x_t, y_t in zip(X, y, strict=True):
            spread = 1 + x_t @ V @ x_t
            gain, error = V @ x_t / spread, y_t - x_t @ m
            m, V, a, b = m + gain * error, V - torch.outer(gain, x_t @ V), a + 0.5, b + error**2 / spread / 2
        mean, var = nig_posterior_predictive(X, y, xq, k0, 3.0, 2.0)
        torch.testing.assert_close(mean, xq @ m, atol=1e-12, rtol=0)
        torch.testing.assert_close(var, b / (a - 1) * (1 + xq @ V @ xq), atol=1e-12, rtol=0)

    def test_is_the_student_distribution_by_quadrature(self):
        """One example in one dimension: integrate w and σ² out on a grid."""
        x, y, xq, k0, a0, b0 = 0.8, 1.1, 1.5, 0.7, 4.0, 1.3
        s2, w = torch.meshgrid(
            torch.linspace(-4, 4, 801).exp().double(), torch.linspace(-9, 9, 1801).double(), indexing="ij"
        )
        log_weight = -(a0 + 1) * s2.log() - b0 / s2 - s2.log() / 2 - k0 * w**2 / (2 * s2)
        log_weight = log_weight - s2.log() / 2 - (y - w * x) ** 2 / (2 * s2) + s2.log()
        weight = (log_weight - log_weight.max()).exp()
        weight = weight / weight.sum()
        mean = (weight * w * xq).sum()
        var = (weight * (s2 + (w * xq) ** 2)).sum() - mean**2
        X, targets, query = (torch.tensor(v, dtype=torch.float64) for v in ([[x]], [y], [xq]))
        got = nig_posterior_predictive(X, targets, query, k0, a0, b0)
        torch.testing.assert_close(torch.stack(got), torch.stack([mean, var]), atol=1e-3, rtol=1e-3)

    def test_approaches_least_squares_with_many_examples(self, generator):
        X, xq = normal(generator, 4000, 3), normal(generator, 3)
        y = X @ normal(generator, 3) + 0.5 * normal(generator, 4000)
        bayes, ols = nig_posterior_predictive(X, y, xq, 1.0, 2.0, 1.0), ols_predictive(X, y, xq)
        torch.testing.assert_close(bayes, ols, atol=3e-3, rtol=3e-3)

    def test_refuses(self, generator):
        X, y, xq = normal(generator, 0, 3), normal(generator, 0), normal(generator, 3)
        with pytest.raises(ValueError, match=r"a0 \+ t/2 - 1 must be greater than 0"):
            nig_posterior_predictive(X, y, xq, 1.0, 1.0, 1.0)
        with pytest.raises(ValueError, match="k0 must be greater than 0"):
            nig_posterior_predictive(X, y, xq, 0.0, 2.0, 1.0)


class TestLeastSquares:
    def test_equals_scikit_learn(self, generator):
        X, y, xq = normal(generator, 9, 3), normal(generator, 9), normal(generator, 3)
        fit = LinearRegression(fit_intercept=False).fit(X.numpy(), y.numpy())
        mean, var = ols_predictive(X, y, xq)
        residuals = y.numpy() - fit.predict(X.numpy())
        leverage = xq @ torch.linalg.inv(X.mT @ X) @ xq
        assert mean.item() == pytest.approx(fit.predict(xq[None].numpy())[0])
        assert var.item() == pytest.approx((residuals**2).sum() / 6 * (1 + leverage.item()))

    def test_the_variance_is_unbiased(self, generator):
        X, w, xq = normal(generator, 8, 3), normal(generator, 3), normal(generator, 3)
        y = X @ w + 0.7 * normal(generator, 40_000, 8)
        _, var = ols_predictive(X.expand(40_000, 8, 3), y, xq.expand(40_000, 3))
        expected = 0.49 * (1 + xq @ torch.linalg.inv(X.mT @ X) @ xq)
        assert var.mean().item() == pytest.approx(expected.item(), rel=0.02)

    def test_refuses_too_few_examples(self, generator):
        with pytest.raises(ValueError, match="number of examples must be at least 6, got 5"):
            ols_predictive(normal(generator, 5, 3), normal(generator, 5), normal(generator, 3))


def test_rate():
    assert icl_generalisation_rate(100, 25, 4) == pytest.approx(math.sqrt(4 / 2500))
    assert icl_generalisation_rate(100, 25, 50) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="window must be at least 1"):
        icl_generalisation_rate(3, 3, 0)
