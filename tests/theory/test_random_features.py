"""Facts that the methods of theory/random_features must satisfy: ridge regression on random features."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from dlatlas.ops.kernel_ridge import predicted_error
from dlatlas.theory.random_features import (
    estimate_powerlaw,
    gaussian_features,
    optimal_fit_ratio,
    rf_omniscient,
    rf_ridge,
)
from tests.examples import Example, Make


def spectrum(make: Make) -> dict:
    return {"eigs": make.uniform(12, low=0.1), "coefs": make.normal(12)}


EXAMPLES = [
    Example(
        rf_omniscient,
        lambda make: {**spectrum(make), "n": 5, "k": 8, "delta": 0.2, "noise": 0.1},
        differentiable=("eigs", "coefs"),
    ),
    Example(
        rf_omniscient,
        lambda make: {**spectrum(make), "n": 9, "k": 4, "delta": 0.0},
        differentiable=("eigs", "coefs"),
    ),
    Example(
        rf_ridge,
        lambda make: {
            "psi_train": make.normal(6, 4),
            "y": make.normal(6),
            "psi_test": make.normal(3, 4),
            "delta": 0.3,
        },
        differentiable=("psi_train", "y", "psi_test"),
    ),
    Example(
        gaussian_features,
        lambda make: {
            "n": 4,
            "eigs": make.uniform(5),
            "k": 3,
            "generator": torch.Generator().manual_seed(0),
        },
        vmap=False,
    ),
    Example(
        estimate_powerlaw,
        lambda make: {
            "K": (lambda a: a @ a.mT + torch.eye(8, dtype=a.dtype, device=a.device))(make.normal(8, 8)),
            "y": make.normal(8),
            "sizes": [2, 4, 8],
        },
        differentiable=("K", "y"),
    ),
    Example(optimal_fit_ratio, lambda make: {"alpha": 1.5, "beta": 1.3, "relative_noise": 0.2}, vmap=False),
]

MODES = torch.arange(1, 401, dtype=torch.float64)
EIGS, COEFS = MODES**-1.5, MODES**-0.8


def error(n, k, delta, noise=0.1):
    return rf_omniscient(EIGS, COEFS, n=n, k=k, delta=delta, noise=noise)


class TestOmniscient:
    def test_fixed_case(self):
        got = error(60, 100, 0.05)
        assert got["test"].item() == pytest.approx(0.569, abs=5e-4)
        assert got["train"].item() == pytest.approx(0.0233, abs=5e-5)

    @settings(deadline=None, max_examples=30)
    @given(n=st.integers(5, 300), k=st.integers(5, 300), delta=st.floats(1e-3, 10))
    def test_solves_both_equations(self, n, k, delta):
        got = error(n, k, delta)
        z = (EIGS / (EIGS + got["gamma"])).sum()
        assert (z + delta / got["kappa"]).item() == pytest.approx(n, rel=1e-6)
        assert (z + k * got["kappa"] / got["gamma"]).item() == pytest.approx(k, rel=1e-6)
        assert got["train"].item() == pytest.approx(((delta / (n * got["kappa"])) ** 2 * got["test"]).item(), rel=1e-6)

    def test_agrees_with_draws(self):
        generator = torch.Generator().manual_seed(0)
        found = []
        for _ in range(60):
            phi, psi, g = gaussian_features(60, EIGS, 100, generator=generator)
            y = phi @ COEFS + math.sqrt(0.1) * torch.randn(60, generator=generator, dtype=torch.float64)
            # The prediction at the unit vectors of mode space gives the learnt coefficients.
            learnt = rf_ridge(psi, y, (g * EIGS.sqrt()).mT, delta=0.05)
            found.append((learnt - COEFS).square().sum() + 0.1)
        assert torch.stack(found).mean().item() == pytest.approx(error(60, 100, 0.05)["test"].item(), rel=0.05)

    def test_limits(self):
        infinite = error(60, math.inf, 0.05)
        assert error(60, 1e8, 0.05)["test"].item() == pytest.approx(infinite["test"].item(), rel=1e-5)
        kernel = predicted_error(EIGS, torch.ones_like(EIGS), COEFS**2, n=60, ridge=0.05, noise=0.1)
        assert infinite["test"].item() == pytest.approx(kernel.item(), rel=1e-9)
        assert infinite["kappa"] == infinite["gamma"]
        assert error(1e9, math.inf, 0.05)["test"].item() == pytest.approx(0.1, abs=1e-5)

    @pytest.mark.parametrize(("n", "k"), [(60, 100), (100, 60)])
    def test_without_a_ridge_the_scarcer_is_used_up(self, n, k):
        got = error(n, k, 0.0)
        assert (EIGS / (EIGS + got["gamma"])).sum().item() == pytest.approx(60, rel=1e-9)
        near = error(n, k, 1e-9)
        assert got["test"].item() == pytest.approx(near["test"].item(), rel=1e-4)
        assert got["train"].item() == pytest.approx(near["train"].item(), abs=1e-4)
        assert (got["train"] == 0) == (n < k)

    def test_diverges_where_samples_equal_features(self):
        errors = [error(100, 100 + gap, 0.0)["test"].item() for gap in (1.0, 0.1, 0.01)]
        assert errors[1] > 5 * errors[0]
        assert errors[2] > 5 * errors[1]

    @settings(deadline=None, max_examples=20)
    @given(n=st.integers(5, 200), k=st.integers(5, 200), noise=st.floats(0, 2))
    def test_best_ridge_is_monotone(self, n, k, noise):
        def best(n, k):
            found = minimize_scalar(
                lambda log: error(n, k, math.exp(log), noise)["test"].item(), bounds=(-12, 6), method="bounded"
            )
            return found.fun

        assert best(n + 20, k) <= best(n, k) + 1e-4
        assert best(n, k + 20) <= best(n, k) + 1e-4

    def test_refuses(self):
        with pytest.raises(ValueError, match="eigs must lie"):
            rf_omniscient(-EIGS, COEFS, n=3, k=4, delta=0.1)
        with pytest.raises(ValueError, match="delta must be greater than 0 for n = 40, k = 40"):
            error(40, 40, 0.0)
        with pytest.raises(ValueError, match="and 400 modes"):
            error(500, 600, 0.0)
        with pytest.raises(ValueError, match="delta must be at least"):
            error(3, 4, -0.1)
        with pytest.raises(ValueError, match="k must be at least 1"):
            error(3, 0, 0.1)
        with pytest.raises(ValueError, match="noise must be at least"):
            error(3, 4, 0.1, noise=-1.0)


class TestFeatures:
    def test_mean_kernel(self):
        generator = torch.Generator().manual_seed(0)
        phi, psi, g = gaussian_features(5, EIGS[:6], 200_000, generator=generator)
        torch.testing.assert_close(psi @ psi.mT / 200_000, phi * EIGS[:6] @ phi.mT, atol=0.05, rtol=0)
        torch.testing.assert_close(psi, (phi * EIGS[:6].sqrt()) @ g.mT)

    def test_ridge_is_the_formula(self):
        generator = torch.Generator().manual_seed(0)
        _, psi, _ = gaussian_features(9, EIGS, 4, generator=generator)
        y = torch.randn(7, 2, generator=generator, dtype=torch.float64)
        K = psi @ psi.mT / 4
        expected = K[7:, :7] @ torch.linalg.inv(K[:7, :7] + 0.3 * torch.eye(7, dtype=torch.float64)) @ y
        torch.testing.assert_close(rf_ridge(psi[:7], y, psi[7:], delta=0.3), expected)

    def test_refuses(self):
        with pytest.raises(ValueError, match="n must be at least 1"):
            gaussian_features(0, EIGS, 3)
        with pytest.raises(ValueError, match="eigs must lie"):
            gaussian_features(2, -EIGS, 3)


class TestPowerLaws:
    def test_recovers_exponents(self):
        generator = torch.Generator().manual_seed(0)
        i = torch.arange(1, 20_001, dtype=torch.float64)
        phi = torch.randn(400, len(i), generator=generator, dtype=torch.float64)
        y = phi @ i**-0.9
        alpha, beta = estimate_powerlaw((phi * i**-1.8) @ phi.mT, y, sizes=[50, 100, 200, 400])
        assert alpha.item() == pytest.approx(1.8, abs=0.1)
        assert beta.item() == pytest.approx(1.8, abs=0.25)

    @settings(deadline=None, max_examples=40)
    @given(alpha=st.floats(1.1, 3), share=st.floats(0.05, 0.95), noise=st.floats(0, 10))
    def test_minimises_the_error(self, alpha, share, noise):
        beta = 1 + share * 2 * alpha
        r = math.sqrt(optimal_fit_ratio(alpha, beta, relative_noise=noise))

        def value(r):
            return ((1 - r) ** (1 - beta) + alpha * noise) / (1 + (alpha - 1) * r)

        assert value(r) <= min(value(j / 500) for j in range(500)) * (1 + 1e-9)

    def test_known_ratios(self):
        assert optimal_fit_ratio(1.5, 1.3) == pytest.approx((0.2 / 0.65) ** 2)
        assert optimal_fit_ratio(1.5, 1.6) == pytest.approx(0.0, abs=1e-12)

    def test_refuses(self):
        for alpha, beta in ((1.0, 1.3), (1.5, 1.0), (1.5, 4.1)):
            with pytest.raises(ValueError, match="alpha must exceed 1"):
                optimal_fit_ratio(alpha, beta)
        with pytest.raises(ValueError, match="relative_noise"):
            optimal_fit_ratio(1.5, 1.3, relative_noise=-1.0)
        K, y = torch.eye(4).double(), torch.ones(4).double()
        with pytest.raises(ValueError, match="number of sizes"):
            estimate_powerlaw(K, y, sizes=[3])
        with pytest.raises(ValueError, match="size must lie"):
            estimate_powerlaw(K, y, sizes=[3, 5])
        with pytest.raises(ValueError, match="not positive"):
            estimate_powerlaw(torch.ones(4, 4).double(), y, sizes=[2, 4])
