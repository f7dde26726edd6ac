"""Facts of `dlatlas.ops.kernel_ridge`."""

import pytest
import torch

from dlatlas.ops.kernel_ridge import (
    effective_ridge,
    predicted_error,
    regression_curve,
    ridge_fit,
    ridge_path,
    ridge_predict,
    truncated_lstsq,
    weighted_lstsq,
)
from tests.examples import Example, Make


def regression(make: Make) -> dict:
    x, x_test = make.normal(6, 4), make.normal(3, 4)
    identity = torch.eye(6, dtype=make.dtype, device=make.device)
    return {"K_train": x @ x.mT + identity, "K_test": x_test @ x.mT, "y": make.normal(6)}


def spectrum(make: Make) -> dict:
    return {"eigenvalues": make.uniform(9, low=0.1), "multiplicities": make.uniform(9, low=1.0, high=3.0), "n": 5}


EXAMPLES = [
    Example(ridge_predict, lambda make: {**regression(make), "ridge": 0.3}, differentiable=("K_train", "K_test", "y")),
    Example(
        regression_curve,
        lambda make: {**regression(make), "y_test": make.normal(3), "sizes": [2, 6], "ridge": 0.3},
        differentiable=("K_train", "K_test", "y", "y_test"),
    ),
    Example(effective_ridge, lambda make: {**spectrum(make), "ridge": 0.2}),
    Example(
        predicted_error,
        lambda make: {**spectrum(make), "power": make.uniform(9), "ridge": 0.2, "noise": 0.1},
        differentiable=("eigenvalues", "power"),
    ),
    Example(
        ridge_fit,
        lambda make: {"phi": make.normal(6, 4), "y": make.normal(6, 2), "ridge": 0.3},
        differentiable=("phi", "y"),
    ),
    Example(
        ridge_fit,
        lambda make: {"phi": make.normal(4, 6), "y": make.normal(4), "ridge": 0.3},
        differentiable=("phi", "y"),
    ),
    Example(
        ridge_path,
        lambda make: {"phi": make.normal(6, 4), "y": make.normal(6), "ridges": make.uniform(3, low=0.1)},
        differentiable=("phi", "y", "ridges"),
    ),
    Example(
        truncated_lstsq,
        lambda make: {"phi": make.normal(6, 4), "y": make.normal(6, 2)},
        differentiable=("phi", "y"),
    ),
    Example(
        weighted_lstsq,
        lambda make: {"phi": make.normal(6, 4), "y": make.normal(6), "w": make.uniform(6, low=0.2)},
        differentiable=("phi", "y", "w"),
    ),
]


@pytest.fixture
def problem() -> dict:
    return regression(Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0)))


def test_prediction_is_the_formula(problem):
    K, k, y = problem["K_train"], problem["K_test"], problem["y"]
    expected = k @ torch.linalg.inv(K + 0.7 * torch.eye(6, dtype=torch.float64)) @ y
    torch.testing.assert_close(ridge_predict(K, k, y, ridge=0.7), expected)
    both = ridge_predict(K, k, torch.stack([y, -2 * y], 1), ridge=0.7)
    torch.testing.assert_close(both, torch.stack([expected, -2 * expected], 1))


def test_no_ridge_interpolates_and_a_huge_one_predicts_zero(problem):
    K, y = problem["K_train"], problem["y"]
    torch.testing.assert_close(ridge_predict(K, K, y, ridge=0.0), y)
    assert ridge_predict(K, K, y, ridge=1e9).abs().max() < 1e-6


def test_curve_uses_the_first_samples(problem):
    y_test = torch.zeros(3, dtype=torch.float64)
    curve = regression_curve(**problem, y_test=y_test, sizes=[1, 4], ridge=0.1)
    K, k, y = problem["K_train"][:4, :4], problem["K_test"][:, :4], problem["y"][:4]
    torch.testing.assert_close(curve[1], ridge_predict(K, k, y, ridge=0.1).square().mean())
    alone = problem["K_test"][:, 0] * problem["y"][0] / (problem["K_train"][0, 0] + 0.1)
    torch.testing.assert_close(curve[0], alone.square().mean())


def test_effective_ridge_of_equal_eigenvalues():
    """M modes of size l, no ridge: M l/(l + kappa) = n."""
    eigenvalues, multiplicities = torch.full((4,), 0.5).double(), torch.full((4,), 10.0).double()
    kappa = effective_ridge(eigenvalues, multiplicities, n=16, ridge=0.0)
    assert kappa.item() == pytest.approx(0.5 * (40 / 16 - 1), rel=1e-9)


def test_left_out_modes_act_as_a_ridge():
    """Ten thousand tiny modes, and their trace as a ridge."""
    head = torch.tensor([1.0, 0.5, 0.2]).double()
    tail = torch.full((1,), 1e-6).double()
    full = effective_ridge(torch.cat([head, tail]), torch.tensor([1.0, 1, 1, 1e4]).double(), n=10, ridge=0.0)
    short = effective_ridge(head, torch.ones(3).double(), n=10, ridge=1e-2)
    assert full.item() == pytest.approx(short.item(), rel=2e-3)


def test_prediction_matches_gaussian_features():
    """Ridge regression on Gaussian features, mean over draws."""
    d, n, ridge = 120, 60, 0.5
    generator = torch.Generator().manual_seed(0)
    eigenvalues = 1 / torch.arange(1, d + 1, dtype=torch.float64)
    power = eigenvalues.square()
    errors = []
    for _ in range(40):
        features = torch.randn(n, d, generator=generator, dtype=torch.float64) * eigenvalues.sqrt()
        signs = torch.randint(0, 2, (d,), generator=generator).double() * 2 - 1
        weights = signs * (power / eigenvalues).sqrt()
        gram = features @ features.mT + ridge * torch.eye(n, dtype=torch.float64)
        fitted = features.mT @ torch.linalg.solve(gram, features @ weights)
        errors.append((eigenvalues * (fitted - weights) ** 2).sum())
    predicted = predicted_error(eigenvalues, torch.ones_like(eigenvalues), power, n=n, ridge=ridge)
    assert torch.stack(errors).mean().item() == pytest.approx(predicted.item(), rel=0.08)


@pytest.mark.parametrize(("n", "k"), [(7, 4), (4, 7), (5, 5)])
@pytest.mark.parametrize("outputs", [(), (2,)])
def test_ridge_on_features_is_the_normal_equation(n, k, outputs):
    generator = torch.Generator().manual_seed(0)
    phi, y = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((n, k), (n, *outputs)))
    ridges = torch.tensor([0.05, 0.7], dtype=torch.float64)
    identity = torch.eye(k, dtype=torch.float64)
    expected = torch.stack([torch.linalg.inv(phi.T @ phi + r * identity) @ phi.T @ y for r in ridges])
    torch.testing.assert_close(ridge_path(phi, y, ridges), expected)
    torch.testing.assert_close(ridge_fit(phi, y, ridge=0.7), expected[1])


def test_truncation_drops_small_directions_and_keeps_the_others():
    generator = torch.Generator().manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    s = torch.tensor([2.0, 1, 0.5, 1e-3, 1e-9, 0.0], dtype=torch.float64)
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    for rcond, kept in ((0.1, 3), (1e-6, 4), (1e-12, 5)):
        expected = V[:, :kept] @ ((U.T @ y)[:kept] / s[:kept])
        got = truncated_lstsq((U * s) @ V.T, y, rcond=rcond)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-6)


def test_weights_are_repetitions():
    generator = torch.Generator().manual_seed(0)
    phi, y = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((5, 2), (5,)))
    w = torch.tensor([3, 1, 0, 2, 1])
    repeated = torch.repeat_interleave(torch.arange(5), w)
    expected = torch.linalg.lstsq(phi[repeated], y[repeated][:, None]).solution[:, 0]
    torch.testing.assert_close(weighted_lstsq(phi, y, w.double()), expected)


def test_noise_adds_its_share():
    ones = torch.ones(5).double()
    without = predicted_error(ones, ones, 0 * ones, n=3, noise=0.0)
    assert without.item() == 0
    # Five equal modes, three samples, no ridge: l/(l + kappa) = 3/5, gamma = 5 (3/5)^2 / 3 = 3/5.
    assert predicted_error(ones, ones, 0 * ones, n=3, noise=1.0).item() == pytest.approx(2.5)


def test_refuses_what_makes_no_sense(problem):
    with pytest.raises(ValueError, match="ridge must be at least"):
        ridge_predict(**problem, ridge=-1.0)
    with pytest.raises(ValueError, match="not positive"):
        ridge_predict(torch.ones(6, 6).double(), problem["K_test"], problem["y"], ridge=0.0)
    with pytest.raises(ValueError, match="size must lie"):
        regression_curve(**problem, y_test=torch.zeros(3).double(), sizes=[7], ridge=0.1)
    ones = torch.ones(3).double()
    with pytest.raises(ValueError, match="eigenvalues must lie"):
        effective_ridge(-ones, ones, n=2, ridge=0.0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        effective_ridge(ones, ones, n=0, ridge=0.0)
    with pytest.raises(ValueError, match="noise must be at least"):
        predicted_error(ones, ones, ones, n=2, noise=-1.0)
    phi, y = torch.ones(3, 2).double(), torch.ones(3).double()
    with pytest.raises(ValueError, match="ridge must be at least"):
        ridge_fit(phi, y, ridge=-0.1)
    with pytest.raises(ValueError, match="ridges must lie"):
        ridge_path(phi, y, torch.tensor([0.1, 0.0]).double())
    with pytest.raises(ValueError, match="rcond must lie"):
        truncated_lstsq(phi, y, rcond=2.0)
    with pytest.raises(ValueError, match="number of points"):
        weighted_lstsq(phi.T, y[:2], y[:2])
    with pytest.raises(ValueError, match="w must lie"):
        weighted_lstsq(phi, y, -y)
