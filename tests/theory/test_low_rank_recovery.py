"""Facts that robust low-rank recovery must satisfy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dlatlas.theory.low_rank_recovery import (
    floor_exponent,
    measurements,
    sign_rip_deviation,
    sign_rip_factor,
    sign_rip_prediction,
    small_spectral_init,
    subgm,
    subgm_population,
    subgradient,
)
from tests.examples import Example, Make


def positive(make: Make, d: int = 4, r: int = 2) -> torch.Tensor:
    root = make.normal(d, r)
    return root @ root.mT


def scalar(make: Make, low: float = 0.2, high: float = 0.8) -> torch.Tensor:
    return make.uniform(1, low=low, high=high)[0]


def recovery_arguments(make: Make, **extra) -> dict:
    return {
        "A": make.normal(30, 4, 4),
        "y": make.normal(30),
        "U": 0.3 * make.normal(4, 3),
        "X": positive(make),
        "eta0": 0.05,
        "steps": 2,
        **extra,
    }


EXAMPLES = [
    Example(
        measurements,
        lambda make: {"A": make.normal(7, 4, 4), "X": positive(make), "s": make.normal(7)},
        differentiable=("A", "X", "s"),
    ),
    Example(subgradient, lambda make: {"A": make.normal(7, 4, 4), "y": make.normal(7), "Z": positive(make)}),
    Example(small_spectral_init, lambda make: {"A": make.normal(40, 4, 4), "y": make.normal(40), "k": 1, "alpha": 0.1}),
    Example(subgm, recovery_arguments, differentiable=("U",)),
    Example(subgm, lambda make: recovery_arguments(make, rule="geometric"), differentiable=("U",)),
    Example(
        subgm_population,
        lambda make: {"eigenvalues": make.uniform(4), "u": make.uniform(4), "steps": 5},
        differentiable=("eigenvalues", "u"),
    ),
    Example(sign_rip_factor, lambda make: {"norm": scalar(make), "s": make.normal(9)}, differentiable=("norm", "s")),
    Example(
        sign_rip_deviation,
        lambda make: {"A": make.normal(30, 4, 4), "X": positive(make), "s": make.normal(30)},
        differentiable=("A",),
    ),
    Example(
        sign_rip_prediction,
        lambda make: {"d": 4, "m": 30, "factor": scalar(make)},
        differentiable=("factor",),
    ),
    Example(
        floor_exponent,
        lambda make: {"eigenvalues": make.uniform(3, low=0.5), "delta": scalar(make)},
        differentiable=("eigenvalues", "delta"),
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def problem(generator, d=8, r=2, m=600, outliers=0.0):
    Q = torch.linalg.qr(normal(generator, d, r)).Q
    X = Q @ Q.mT
    A = normal(generator, m, d, d)
    s = 10 * normal(generator, m) * (torch.rand(m, generator=generator) < outliers)
    return A, measurements(A, X, s), X


class TestMeasurements:
    def test_hand_case(self):
        A = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 0.0]]])
        X = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
        assert measurements(A, X, torch.tensor([0.0, 5.0])).tolist() == [11.0, 6.0]

    def test_refuses_what_is_no_square(self):
        A, s = torch.ones(3, 2, 2), torch.zeros(3)
        with pytest.raises(ValueError, match="asymmetry of X"):
            measurements(A, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), s)
        with pytest.raises(ValueError, match="smallest eigenvalue of X"):
            measurements(A, torch.tensor([[1.0, 0.0], [0.0, -0.5]]), s)
        with pytest.raises(TypeCheckError):
            measurements(A, torch.eye(3), s)


class TestSubgradient:
    def test_is_that_of_autograd(self, generator):
        A, y, _ = problem(generator, m=50, outliers=0.3)
        U = normal(generator, 8, 3).requires_grad_()
        loss = (y - torch.einsum("ide,de->i", A, U @ U.mT)).abs().mean()
        (gradient,) = torch.autograd.grad(loss, U)
        torch.testing.assert_close(gradient, 2 * subgradient(A, y, U @ U.mT) @ U)

    def test_symmetric(self, generator):
        M = subgradient(normal(generator, 9, 4, 4), normal(generator, 9), torch.eye(4, dtype=torch.float64))
        assert torch.equal(M, M.mT)


class TestSubGM:
    @pytest.mark.parametrize("rule", ["residual", "geometric"])
    def test_rotation_of_the_start_changes_nothing(self, generator, rule):
        A, y, X = problem(generator, m=80, outliers=0.2)
        U = normal(generator, 8, 4)
        Q = torch.linalg.qr(normal(generator, 4, 4)).Q
        ends = [subgm(A, y, start, X, eta0=0.1, steps=15, rule=rule)[0] for start in (U, U @ Q)]
        torch.testing.assert_close(ends[0] @ ends[0].mT, ends[1] @ ends[1].mT)

    def test_columns_of_zeros_stay(self, generator):
        A, y, X = problem(generator)
        U = torch.cat([normal(generator, 8, 2), torch.zeros(8, 3, dtype=torch.float64)], 1)
        assert (subgm(A, y, U, X, steps=5)[0][:, 2:] == 0).all()

    @pytest.mark.parametrize("rule", ["residual", "geometric"])
    def test_batch_is_one_by_one(self, generator, rule):
        A, y, X = problem(generator)
        Y = torch.stack([y, y + normal(generator, len(y))])
        starts = normal(generator, 2, 8, 3)
        together = subgm(A, Y, starts, X, eta0=0.1, steps=5, rule=rule)
        alone = [subgm(A, *of_one, X, eta0=0.1, steps=5, rule=rule) for of_one in zip(Y, starts, strict=True)]
        for got, expected in zip(together, zip(*alone, strict=True), strict=True):
            torch.testing.assert_close(got, torch.stack(expected))

    @pytest.mark.parametrize("k", [2, 8])
    def test_recovers_under_outliers(self, generator, k):
        A, y, X = problem(generator, outliers=0.3)
        start = small_spectral_init(A, y, k, alpha=1e-4)
        U, errors = subgm(A, y, start, X, eta0=0.5, rho=0.98, steps=600, rule="geometric")
        assert errors[-1] < 1e-3
        torch.testing.assert_close(errors[-1], (U @ U.mT - X).norm() / X.norm())
        assert len(errors) == 601

    @pytest.mark.parametrize("rule", ["residual", "geometric"])
    def test_follows_the_population(self, generator, rule):
        A, y, X = problem(generator, m=20000)
        arguments = {"eta0": 0.25, "rho": 0.9, "steps": 12, "rule": rule}
        _, errors = subgm(A, y, 0.3 * torch.eye(8, dtype=torch.float64), X, **arguments)
        sigma = torch.linalg.eigvalsh(X).clamp(min=0)
        path = subgm_population(sigma, torch.full((8,), 0.3, dtype=torch.float64), **arguments)
        predicted = (path**2 - sigma).norm(dim=1) / sigma.norm()
        torch.testing.assert_close(errors, predicted, rtol=0.05, atol=0.01)

    def test_refuses(self, generator):
        A, y, X = problem(generator, m=10)
        for extra, message in (
            ({"rule": "constant"}, "rule must be one of"),
            ({"eta0": 0.0}, "eta0 must be greater than 0"),
            ({"rho": 1.1}, "rho must lie"),
        ):
            with pytest.raises(ValueError, match=message):
                subgm(A, y, X, X, steps=1, **extra)
        with pytest.raises(ValueError, match="eigenvalues must lie"):
            subgm_population(torch.tensor([1.0, -1.0]), torch.ones(2), steps=1)


class TestSpectralInit:
    def test_scale_and_direction(self, generator):
        A, y, X = problem(generator, r=1, m=5000)
        U = small_spectral_init(A, y, 1, alpha=0.01)
        torch.testing.assert_close((U @ U.mT).norm().item(), 1e-4)
        assert ((U @ U.mT) * X).sum() / (U @ U.mT).norm() > 0.95

    def test_refuses(self, generator):
        A, y, _ = problem(generator, m=10)
        with pytest.raises(ValueError, match="alpha must be greater than 0"):
            small_spectral_init(A, y, 2, alpha=0.0)
        with pytest.raises(ValueError, match="k must lie"):
            small_spectral_init(A, y, 9, alpha=0.1)


class TestSignRIP:
    @settings(deadline=None, max_examples=40)
    @given(norm=st.floats(0.2, 5), s=st.floats(-4, 4))
    def test_factor_is_the_expectation(self, norm, s):
        # E[sign(|X| g - s) g] by Gauss-Hermite on either side of the jump would converge slowly; the density is exact.
        grid = np.linspace(s / norm, s / norm + 40, 200001)
        density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        # The integral over all g is zero, so twice the part above the jump is left.
        expected = 2 * np.trapezoid(grid * density, grid)
        got = sign_rip_factor(torch.tensor(norm, dtype=torch.float64), torch.tensor([s], dtype=torch.float64))
        assert got.item() == pytest.approx(expected, abs=1e-6)

    def test_clean_and_gross(self):
        half = torch.tensor([0.0, 1e6], dtype=torch.float64)
        got = sign_rip_factor(torch.tensor(1.0, dtype=torch.float64), half)
        assert got.item() == pytest.approx(math.sqrt(2 / math.pi) / 2)

    def test_deviation_approaches_its_limit(self, generator):
        d, m = 40, 4000
        X = torch.zeros(d, d, dtype=torch.float64)
        X[0, 0] = 1
        s = torch.zeros(m, dtype=torch.float64)
        measured = sign_rip_deviation(normal(generator, m, d, d), X, s)
        factor = sign_rip_factor(X.norm(), s)
        assert measured.item() == pytest.approx(sign_rip_prediction(d, m, factor).item(), rel=0.1)

    def test_refuses(self):
        zero = torch.zeros(3, 3)
        with pytest.raises(ValueError, match="norm must lie"):
            sign_rip_deviation(torch.ones(2, 3, 3), zero, torch.zeros(2))
        with pytest.raises(ValueError, match="factor must lie"):
            sign_rip_prediction(3, 9, torch.tensor(0.0))
        with pytest.raises(ValueError, match="m must be at least 1"):
            sign_rip_prediction(3, 0, torch.tensor(0.5))


class TestFloorExponent:
    def test_known_values(self):
        equal = torch.ones(4, dtype=torch.float64)
        assert floor_exponent(equal, torch.tensor(0.0, dtype=torch.float64)).item() == 2
        assert floor_exponent(equal, torch.tensor(0.25, dtype=torch.float64)).item() == pytest.approx(1)
        uneven = torch.tensor([3.0, 4.0])
        assert floor_exponent(uneven, torch.tensor(0.1)).item() == pytest.approx(2 - 0.2 * 5 / 3)

    def test_refuses_zero_eigenvalues(self):
        with pytest.raises(ValueError, match="eigenvalues must lie"):
            floor_exponent(torch.tensor([1.0, 0.0]), torch.tensor(0.1))
