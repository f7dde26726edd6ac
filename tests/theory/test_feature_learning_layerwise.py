"""Facts that the methods of theory/feature_learning must satisfy: layerwise training and its predictions."""

import math

import pytest
import torch

from dlatlas.theory.feature_learning_layerwise import (
    QuadraticMoments,
    composition_error,
    quadratic_moments,
    stage_one,
    stage_one_correlation,
    three_layer_layerwise,
)
from dlatlas.theory.feature_learning_polynomials import (
    hermite,
    hermite2_coefficients,
    hermite2_features,
    hermite_kernel,
    hermite_target,
)
from tests.examples import Example, Make
from tests.theory.test_feature_learning_polynomials import grid

MOMENTS = QuadraticMoments(signal=1.0, leakage=0.2, energy=2.0)


def layerwise_arguments(make: Make) -> dict:
    return {
        "x": make.normal(40, 3),
        "y": make.normal(40),
        "k": 2,
        "width": 6,
        "ridge": 1.0,
        "generator": torch.Generator().manual_seed(0),
    }


EXAMPLES = [
    Example(
        stage_one,
        lambda make: {"features": make.normal(9, 4), "y": make.normal(9), "stage1": "lsq", "ridge": 0.5},
        differentiable=("features", "y"),
    ),
    Example(three_layer_layerwise, layerwise_arguments, vmap=False),
    Example(
        quadratic_moments,
        lambda make: {"weights": torch.tensor([0.6, -0.8], dtype=make.dtype), "g1": 1.0, "g2": 0.5},
        vmap=False,
    ),
    Example(
        stage_one_correlation,
        lambda make: {"n": 50, "modes": 10, "moments": MOMENTS, "stage1": "lsq", "ridge": 0.1},
        vmap=False,
    ),
    Example(composition_error, lambda make: {"link": (1.0, 0.5), "correlation": 0.7}, vmap=False),
]
MAKE = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


class TestStageOne:
    def test_linear_link_returns_p(self):
        target = hermite_target(4, k=2, link=(1.0,), generator=torch.Generator().manual_seed(1))
        x = MAKE.normal(30, 4)
        truth = hermite2_coefficients(target.directions, target.weights)
        torch.testing.assert_close(stage_one(hermite2_features(x), target(x), stage1="lsq"), truth)

    def test_one_step_on_the_population_is_the_projection(self):
        target = hermite_target(4, k=2, link=(1.0,), generator=torch.Generator().manual_seed(1))
        points, mass = grid(4, order=6)
        weighted = len(points) * mass * target(points)
        truth = hermite2_coefficients(target.directions, target.weights)
        torch.testing.assert_close(stage_one(hermite2_features(points), weighted, stage1="one_step"), truth)

    @pytest.mark.parametrize("stage1", ["lsq", "one_step"])
    def test_network_has_the_same_feature(self, stage1):
        """The kernel form and the form with features are one regression."""
        given = {**layerwise_arguments(MAKE), "stage1": stage1, "ridge": 0.7}
        net = three_layer_layerwise(**given)
        x, y = given["x"][:30], given["y"][:30]
        c = stage_one(hermite2_features(x), y, stage1=stage1, ridge=0.7)
        new = MAKE.normal(5, 3)
        torch.testing.assert_close(net.feature(new), hermite2_features(new) @ c)

    def test_one_step_of_degree_three(self):
        given = {**layerwise_arguments(MAKE), "k": 3, "stage1": "one_step", "share": 0.5}
        new = MAKE.normal(5, 3)
        expected = hermite_kernel(new, given["x"][:20], 3) @ given["y"][:20] / 20
        torch.testing.assert_close(three_layer_layerwise(**given).feature(new), expected)


class TestNetwork:
    def test_outer_layer_is_ridge_regression(self):
        given = layerwise_arguments(MAKE)
        net = three_layer_layerwise(**given, outer_ridge=0.01)
        z = net.feature(given["x"][30:]) / net.scale
        units = torch.stack([torch.relu(w * z + b) for w, b in zip(net.w, net.b, strict=True)], 1)
        gradient = units.T @ (units @ net.a - given["y"][30:]) / 10 + 0.01 * net.a
        assert gradient.abs().max() < 1e-10
        assert z.square().mean().item() == pytest.approx(1)
        assert set(net.w.tolist()) <= {-1.0, 1.0}

    def test_learns_a_composition(self):
        g = torch.Generator().manual_seed(2)
        target = hermite_target(6, k=2, link=(1.0, 0.3), generator=g)
        x, new = MAKE.normal(1500, 6), MAKE.normal(1000, 6)
        net = three_layer_layerwise(x, target(x), k=2, width=40, ridge=1.0, generator=g)
        error = (net(new) - target(new)).square().mean() / target(new).square().mean()
        assert error < 0.1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"stage1": "adam"}, "stage1 must be one of"),
            ({"share": 1.0}, "share must lie"),
            ({"ridge": 0.0}, "ridge must be greater"),
            ({"outer_ridge": 0.0}, "outer_ridge must be greater"),
            ({"width": 0}, "width must be at least"),
            ({"k": 4}, "k must lie"),
        ],
    )
    def test_refuses(self, change, message):
        with pytest.raises(ValueError, match=message):
            three_layer_layerwise(**{**layerwise_arguments(MAKE), **change})


class TestPredictions:
    @pytest.mark.parametrize("eigenvalues", [(0.6, -0.8), (0.8, 0.6), (2**-0.5, -(2**-0.5))])
    def test_moments_by_quadrature(self, eigenvalues):
        points, mass = grid(2)
        weights = torch.tensor(eigenvalues, dtype=torch.float64)
        p = hermite(points, 2) @ weights
        h = 1.1 * p + 0.7 * hermite(p, 2)
        projected = hermite2_features(points).T @ (mass * h)
        got = quadratic_moments(weights, 1.1, 0.7)
        signal = (mass * h * p).sum().item()
        assert got.signal == pytest.approx(signal)
        assert got.leakage == pytest.approx(projected.square().sum().item() - signal**2, abs=1e-9)
        assert got.energy == pytest.approx((mass * h * h).sum().item())

    def test_closed_forms(self):
        got = stage_one_correlation(500, 100, moments=MOMENTS, stage1="one_step")
        assert got == pytest.approx(1 / math.sqrt(1.2 + 100 * 2.0 / 500))
        got = stage_one_correlation(500, 100, moments=MOMENTS, stage1="lsq")
        assert got == pytest.approx(1 / math.sqrt(1.2 + 100 / 400 * 0.8), rel=1e-6)

    def test_cap(self):
        for stage in ("lsq", "one_step"):
            got = stage_one_correlation(10**8, 100, moments=MOMENTS, stage1=stage)
            assert got == pytest.approx(1 / math.sqrt(1.2), rel=1e-4)

    @pytest.mark.parametrize("n", [240, 600])
    def test_ridge_regression_on_gaussian_features(self, n):
        g, measured = torch.Generator().manual_seed(0), []
        truth = torch.zeros(400).double()
        truth[0] = 1
        power = math.sqrt(1 + MOMENTS.leakage)
        for _ in range(40):
            features = torch.randn(n, 400, generator=g, dtype=torch.float64)
            noise = math.sqrt(MOMENTS.energy - power**2) * torch.randn(n, generator=g, dtype=torch.float64)
            y = features[:, 0] + math.sqrt(MOMENTS.leakage) * features[:, 1] + noise
            c = stage_one(features, y, stage1="lsq", ridge=20.0)
            measured.append((c @ truth / c.norm()).item())
        expected = stage_one_correlation(n, 400, moments=MOMENTS, stage1="lsq", ridge=20.0)
        assert sum(measured) / 40 == pytest.approx(expected, rel=0.03)

    def test_composition(self):
        assert composition_error((1.0, 1.0), 1.0) == 0
        assert composition_error((1.0, 1.0), 0.0) == 1
        assert composition_error((2.0, 0.0), 0.6) == pytest.approx(1 - 0.36)
        points, mass = grid(2, order=16)
        rho = 0.8
        p = rho * points[:, 0] + math.sqrt(1 - rho**2) * points[:, 1]
        h = hermite(p, 1) + 0.5 * hermite(p, 3)
        best = rho * hermite(points[:, 0], 1) + 0.5 * rho**3 * hermite(points[:, 0], 3)
        expected = (mass * (h - best) ** 2).sum() / (mass * h**2).sum()
        assert composition_error((1.0, 0.0, 0.5), rho) == pytest.approx(expected.item())

    def test_refuses(self):
        with pytest.raises(ValueError, match="norm of weights"):
            quadratic_moments(torch.ones(2), 1.0, 1.0)
        with pytest.raises(ValueError, match="stage1"):
            stage_one_correlation(5, 3, moments=MOMENTS, stage1="adam")
        with pytest.raises(ValueError, match="correlation must lie"):
            composition_error((1.0,), 1.5)
        with pytest.raises(ValueError, match="sum of squares of link"):
            composition_error((0.0,), 0.5)
        with pytest.raises(ValueError, match="ridge must be at least"):
            stage_one(torch.ones(3, 2), torch.ones(3), stage1="lsq", ridge=-1.0)
