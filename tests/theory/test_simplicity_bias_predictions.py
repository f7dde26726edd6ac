"""Facts that the methods of theory/simplicity_bias must satisfy: predictions of the shortcut bias."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.ops.kernel_ridge import effective_ridge, ridge_predict
from dlatlas.theory.simplicity_bias import latent_quadrature, probe_grid, reliance
from dlatlas.theory.simplicity_bias_predictions import linear_flow, linear_reliance, population_regression
from tests.examples import Example, Make


def regression(make: Make) -> dict:
    factor = make.normal(9, 4)
    return {
        "K": factor @ factor.mT + torch.eye(9).to(factor),
        "K_test": make.normal(5, 9),
        "weights": make.uniform(9, low=0.5, high=1.0),
        "target": make.normal(9),
        "n": 6,
        "ridge": 0.1,
    }


def means(make: Make) -> torch.Tensor:
    return make.uniform(2, low=0.5, high=2.0)


EXAMPLES = [
    Example(linear_reliance, lambda make: {"w": make.uniform(6, 2, low=0.2, high=1.0)}, differentiable=("w",)),
    Example(
        linear_flow,
        lambda make: {"mu": means(make), "alpha": make.uniform(2, low=0.2), "times": make.uniform(4, high=9.0)},
        differentiable=("mu", "alpha", "times"),
    ),
    Example(population_regression, regression, differentiable=("K_test", "target")),
]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestArea:
    @settings(max_examples=40, deadline=None)
    @given(st.floats(-2, 2), st.floats(-2, 2))
    def test_area(self, a, b):
        if max(abs(a), abs(b)) < 0.05:
            return
        z, w = probe_grid(200, dtype=torch.float64), doubles(a, b)
        assert linear_reliance(w).item() == pytest.approx(reliance(z @ w, z).item(), abs=0.02)

    def test_area_refuses_no_rule(self):
        with pytest.raises(ValueError, match="larger weight"):
            linear_reliance(doubles(0.0, 0.0))


class TestLinearFlow:
    def test_solves_its_equation(self):
        mu, alpha = doubles(1.2, 2.0), doubles(0.9, 0.2)
        t, step = doubles(0.7), 1e-5
        before, u, after = linear_flow(mu, alpha, torch.cat([t - step, t, t + step]))
        S = torch.eye(2, dtype=torch.float64) + torch.outer(mu, mu)
        torch.testing.assert_close((after - before) / (2 * step), alpha**2 * (mu - S @ u), rtol=1e-7, atol=1e-9)

    def test_start_and_end(self):
        mu, alpha = doubles(1.2, 2.0), doubles(1.6, 0.1)
        early, late = linear_flow(mu, alpha, doubles(1e-9, math.inf))
        torch.testing.assert_close(early / early[0], alpha**2 * mu / (alpha[0] ** 2 * mu[0]))
        torch.testing.assert_close(late, mu / (1 + mu @ mu))

    def test_bad_input(self):
        with pytest.raises(ValueError, match="alpha"):
            linear_flow(doubles(1.0, 1.0), doubles(0.0, 1.0), doubles(1.0))
        with pytest.raises(ValueError, match="times"):
            linear_flow(doubles(1.0, 1.0), doubles(1.0, 1.0), doubles(-1.0))


class TestPopulation:
    def test_finite_rank_is_not_shrunk(self):
        """The linear kernel with more samples than its rank gives the best linear rule."""
        mu = doubles(1.3, 2.1)
        z, weights, target = latent_quadrature(mu, points=40, limit=7.0)
        scale = doubles(3.0, 0.2) ** 2
        fit = population_regression((z * scale) @ z.mT, (z * scale) @ z.mT, weights, target, n=50, ridge=0.0)
        torch.testing.assert_close(fit, z @ mu / (1 + mu @ mu), rtol=1e-3, atol=1e-3)

    def test_is_ridge_regression_on_the_population(self):
        generator = torch.Generator().manual_seed(4)
        arguments = regression(Make(torch.float64, torch.device("cpu"), generator))
        K, weights = arguments["K"], arguments["weights"]
        root = weights.sqrt()
        eigenvalues = torch.linalg.eigvalsh(root[:, None] * K * root)
        kappa = effective_ridge(eigenvalues, torch.ones_like(eigenvalues), n=6, ridge=0.1).item()
        expected = ridge_predict(
            root[:, None] * K * root, arguments["K_test"] * root, root * arguments["target"], ridge=kappa
        )
        torch.testing.assert_close(population_regression(**arguments), expected)

    def test_bad_input(self):
        arguments = regression(Make(torch.float64, torch.device("cpu"), torch.Generator()))
        with pytest.raises(ValueError, match="weights"):
            population_regression(**arguments | {"weights": torch.zeros(9, dtype=torch.float64)})
        with pytest.raises(ValueError, match="ridge"):
            population_regression(**arguments | {"ridge": -1.0})
