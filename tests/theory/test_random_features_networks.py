"""Facts that the methods of theory/random_features_networks must satisfy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dlatlas.theory.random_features_networks import (
    SNNK,
    best_a,
    bundle_last,
    orthogonal_gaussian,
    positive_rf,
    positive_rf_moments,
    relu_snnk_features,
    urf,
)
from tests.examples import Example


def sine_ratio(xi):
    return -1j * xi.sign()


EXAMPLES = [
    Example(
        positive_rf,
        lambda make: {"u": make.normal(4, 3) / 2, "g": make.normal(5, 3), "A": -0.1},
        differentiable=("u", "g"),
    ),
    Example(
        positive_rf_moments,
        lambda make: {"u": make.normal(4, 3) / 3, "v": make.normal(2, 3) / 3, "A": -0.1},
        differentiable=("u", "v"),
    ),
    Example(best_a, lambda make: {"length": 2.0, "d": 3}, vmap=False),
    Example(
        urf,
        lambda make: {
            "x": make.normal(4, 3) / 2,
            "w": make.normal(2, 3) / 2,
            "b": make.normal(2),
            "tau": sine_ratio,
            "density": torch.ones_like,
            "xi": make.uniform(5, low=0.1, high=0.3),
            "g": make.normal(5, 3),
        },
    ),
    Example(
        relu_snnk_features,
        lambda make: {"x": make.normal(4, 3), "G": make.normal(5, 3)},
        differentiable=("x", "G"),
    ),
    Example(
        orthogonal_gaussian,
        lambda make: {"m": 5, "d": 3, "generator": torch.Generator().manual_seed(0), "dtype": make.dtype},
        vmap=False,
    ),
    Example(
        bundle_last,
        lambda make: {"phi": make.normal(7, 3), "y": make.normal(7, 2), "ridge": 0.3},
        differentiable=("phi", "y"),
    ),
]


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def hermite():
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.hermite_e.hermegauss(160))
    return nodes[:, None], weights / weights.sum()


class TestPositive:
    @pytest.mark.parametrize("A", [0.0, -0.5, 0.05])
    @pytest.mark.parametrize("factor", [1.0, 1j**0.5])
    def test_mean_is_the_exponential(self, A, factor):
        g, weights = hermite()
        u, v = (factor * torch.tensor([[value]]).double() for value in (0.7, -0.4))
        values = positive_rf(u, g, A) * positive_rf(v, g, A)
        expected = np.exp(complex(factor) ** 2 * 0.7 * -0.4)
        assert abs(complex((values * weights).sum()) - expected) < 1e-8

    @pytest.mark.parametrize("A", [0.0, -0.5])
    @pytest.mark.parametrize("factor", [1.0, 1j**0.5, 1j])
    def test_second_moments(self, A, factor):
        g, weights = hermite()
        u, v = (factor * torch.tensor([[value]]).double() for value in (0.7, 0.3))
        Z = positive_rf(u, g, A) * positive_rf(v, g, A)
        square, absolute = positive_rf_moments(u, v, A)
        assert abs(complex((Z**2 * weights).sum()) - complex(square[0, 0])) < 1e-6
        assert (Z.abs().square() * weights).sum().item() == pytest.approx(absolute.item(), rel=1e-6)

    def test_positive_for_real_vectors(self, draw):
        assert (positive_rf(draw(4, 3), draw(50, 3), -0.2) > 0).all()

    @pytest.mark.parametrize(("length", "d"), [(0.5, 3), (4.0, 16), (20.0, 8)])
    def test_best_a_is_the_minimum(self, length, d):
        u = torch.full((1, d), math.sqrt(length / d) / 2).double()

        def moment(A):
            return positive_rf_moments(u, u, A)[1].item()

        best = best_a(length, d)
        assert best < 0
        assert moment(best) < min(moment(best + s) for s in (-1e-2, -1e-3, 1e-3, 1e-2))

    def test_refuses(self, draw):
        u, g = draw(2, 3), draw(4, 3)
        with pytest.raises(ValueError, match="A must be less than 1/4"):
            positive_rf(u, g, 0.25)
        with pytest.raises(ValueError, match="A must be less than 1/8"):
            positive_rf_moments(u, u, 0.2)
        with pytest.raises(ValueError, match="overflow"):
            positive_rf(1e3 * 1j**0.5 * u, g)
        with pytest.raises(ValueError, match="length"):
            best_a(-1.0, 3)


class TestURF:
    def test_sine_is_unbiased(self, draw):
        x, w, b = draw(3, 2) / 2, draw(2, 2) / 2, draw(2)
        m = 400_000
        xi = torch.full((m,), 1 / (2 * math.pi)).double()
        Phi, Psi = urf(x, w, b, sine_ratio, torch.ones_like, xi, draw(m, 2), -0.05)
        torch.testing.assert_close((Phi @ Psi.mT).real, torch.sin(x @ w.mT + b), atol=0.01, rtol=0)

    def test_gaussian_activation_is_unbiased(self, draw):
        """s(z) = exp(-z^2/2) is its own density of frequencies: tau = p."""
        x, w, b = draw(3, 2) / 3, draw(2, 2) / 3, draw(2)
        m = 400_000
        xi = draw(m) / (2 * math.pi)

        def tau(xi):
            return math.sqrt(2 * math.pi) * torch.exp(-2 * (math.pi * xi) ** 2)

        Phi, Psi = urf(x, w, b, tau, tau, xi, draw(m, 2), -0.05)
        torch.testing.assert_close((Phi @ Psi.mT).real, torch.exp(-((x @ w.mT + b) ** 2) / 2), atol=0.01, rtol=0)

    def test_both_signs_have_the_same_real_part(self, draw):
        x, w, b, g = draw(3, 2), draw(2, 2), draw(2), draw(6, 2)
        xi = draw(6).abs() / 5
        plus, minus = (
            (lambda pair: (pair[0] @ pair[1].mT).real)(urf(x, w, b, sine_ratio, torch.ones_like, s * xi, g))
            for s in (1, -1)
        )
        torch.testing.assert_close(plus, minus)


class TestRelu:
    def test_mean_is_the_arc_cosine_kernel(self, draw):
        angle = 2 * math.pi * (torch.arange(20_000).double() + 0.5) / 20_000
        circle = math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], 1)
        x = draw(2, 2)
        features = relu_snnk_features(x, circle)
        lengths = x.norm(dim=1)
        theta = torch.arccos(x[0] @ x[1] / lengths.prod())
        expected = lengths.prod() * (theta.sin() + (math.pi - theta) * theta.cos()) / (2 * math.pi)
        gram = features @ features.mT
        assert gram[0, 1].item() == pytest.approx(expected.item(), abs=1e-6)
        torch.testing.assert_close(gram.diagonal(), lengths**2 / 2, atol=1e-6, rtol=0)


class TestOrthogonal:
    def test_blocks_are_orthogonal(self):
        G = orthogonal_gaussian(10, 4, generator=torch.Generator().manual_seed(0))
        assert G.shape == (10, 4)
        for block in G.split(4):
            gram = block @ block.mT
            assert (gram - torch.diag(gram.diagonal())).abs().max() < 1e-12

    def test_rows_are_gaussian(self):
        G = orthogonal_gaussian(60_000, 3, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(G.T @ G / len(G), torch.eye(3).double(), atol=0.02, rtol=0)
        assert G.pow(4).mean().item() == pytest.approx(3, abs=0.1)
        assert G.mean(0).abs().max() < 0.02

    def test_refuses(self):
        with pytest.raises(ValueError, match="m must be"):
            orthogonal_gaussian(0, 3)


class TestLayer:
    @pytest.mark.parametrize("kind", ["relu", "sine"])
    def test_from_linear_starts_at_the_kernel(self, kind):
        torch.manual_seed(0)
        linear = nn.Linear(3, 4).double()
        layer = SNNK.from_linear(linear, 300_000, kind)
        x = torch.randn(2, 5, 3).double() / 2
        W = linear.weight
        if kind == "sine":
            expected = torch.sin(linear(x))
        else:
            lengths = x.norm(dim=-1)[..., None] * W.norm(dim=-1)
            theta = torch.arccos(x @ W.mT / lengths)
            expected = lengths * (theta.sin() + (math.pi - theta) * theta.cos()) / (2 * math.pi)
        torch.testing.assert_close(layer(x), expected, atol=0.02, rtol=0)

    def test_fresh_layer_gives_zero_and_trains_its_weights_only(self):
        layer = SNNK(3, 4, 5)
        assert layer(torch.randn(2, 3)).abs().max() == 0
        assert [name for name, _ in layer.named_parameters()] == ["W"]
        assert layer.W.shape == (4, 5)

    def test_bundling_is_ridge_regression(self, draw):
        phi, y = draw(9, 4), draw(9, 2)
        expected = y.T @ phi @ torch.linalg.inv(phi.T @ phi + 0.3 * torch.eye(4).double())
        torch.testing.assert_close(bundle_last(phi, y, ridge=0.3), expected)

    def test_refuses(self):
        with pytest.raises(ValueError, match="kind must be one of relu, sine"):
            SNNK(3, 4, 5, "cosine")
        with pytest.raises(ValueError, match="m must be"):
            SNNK(3, 4, 0)
