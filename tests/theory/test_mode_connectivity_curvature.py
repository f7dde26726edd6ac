"""Facts about barriers and curvature."""

import pytest
import torch

from dlatlas.theory.mode_connectivity import barrier_curve
from dlatlas.theory.mode_connectivity_curvature import (
    barrier_endpoint_predictor,
    barrier_from_curvature,
    layer_names,
    line_derivatives,
    replace_layers,
)
from tests.examples import Example, Make


def smooth(params):
    return torch.sin(params).sum() + params.pow(4).sum() / 10


def ends(make: Make) -> dict:
    return {"p1": make.normal(4), "p2": make.normal(4)}


def named(make: Make) -> dict:
    return {"0.weight": make.normal(2, 3), "0.bias": make.normal(2), "last.weight": make.normal(1, 2)}


EXAMPLES = [
    Example(
        line_derivatives,
        lambda make: {"loss": smooth, "params": make.normal(4), "direction": make.normal(4)},
        differentiable=("params", "direction"),
    ),
    Example(barrier_from_curvature, lambda make: {"loss": smooth, **ends(make)}, differentiable=("p1", "p2")),
    Example(barrier_endpoint_predictor, lambda make: {"loss": smooth, **ends(make)}, differentiable=("p1", "p2")),
    Example(layer_names, lambda make: {"params": named(make)}, vmap=False),
    Example(replace_layers, lambda make: {"p1": named(make), "p2": named(make), "layers": ["0"]}, vmap=False),
]


@pytest.fixture
def make():
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


def parabola(make):
    A = make.normal(4, 4)
    H = A @ A.T
    return lambda t: 0.5 * t @ H @ t + t.sum(), H


def well(t):
    return (t.square() - 1).square().sum()


class TestDerivatives:
    def test_of_a_parabola(self, make):
        loss, H = parabola(make)
        t, D = make.normal(4), make.normal(4)
        slope, curvature = line_derivatives(loss, t, D)
        torch.testing.assert_close(slope, (H @ t + 1) @ D)
        torch.testing.assert_close(curvature, D @ H @ D)

    def test_takes_trees(self, make):
        tree, direction = named(make), named(make)
        _, curvature = line_derivatives(lambda p: sum(v.pow(2).sum() for v in p.values()), tree, direction)
        torch.testing.assert_close(curvature, 2 * sum(v.square().sum() for v in direction.values()))


class TestGreen:
    def test_quartic(self):
        loss, minus, plus = (lambda t: t.pow(4).sum()), -torch.ones(1).double(), torch.ones(1).double()
        assert barrier_from_curvature(loss, minus, plus).item() == pytest.approx(-1, abs=1e-12)

    @pytest.mark.parametrize("a", [0.1, 0.5, 0.8])
    def test_parabola(self, make, a):
        loss, H = parabola(make)
        p1, p2 = make.normal(4), make.normal(4)
        expected = -0.5 * a * (1 - a) * (p2 - p1) @ H @ (p2 - p1)
        torch.testing.assert_close(barrier_from_curvature(loss, p1, p2, a=a, nodes=4), expected)

    def test_any_smooth_loss(self, make):
        p1, p2 = make.normal(4), make.normal(4)
        above, _ = barrier_curve(smooth, p1, p2, n=11)
        for index in (2, 5, 9):
            got = barrier_from_curvature(smooth, p1, p2, a=index / 10)
            torch.testing.assert_close(got, above[index], atol=1e-9, rtol=0)

    def test_misses_a_kink(self):
        kinked, minus, plus = (lambda t: t.abs().sum()), -torch.ones(1).double(), torch.ones(1).double()
        assert barrier_curve(kinked, minus, plus, n=3)[0][1] == -1
        assert barrier_from_curvature(kinked, minus, plus) == 0

    def test_refuses(self, make):
        p1, p2 = make.normal(4), make.normal(4)
        with pytest.raises(ValueError, match="positive even number, got 3"):
            barrier_from_curvature(smooth, p1, p2, nodes=3)
        with pytest.raises(ValueError, match="a must be greater than 0"):
            barrier_from_curvature(smooth, p1, p2, a=0.0)
        with pytest.raises(ValueError, match="1 - a must be greater than 0"):
            barrier_from_curvature(smooth, p1, p2, a=1.0)


class TestEndpoints:
    def test_double_well_is_overestimated(self):
        minus, plus = -torch.ones(1).double(), torch.ones(1).double()
        assert barrier_endpoint_predictor(well, minus, plus).item() == pytest.approx(4)
        assert barrier_curve(well, minus, plus, n=3)[1].item() == 1

    def test_exact_for_a_parabola(self, make):
        loss, _ = parabola(make)
        p1, p2 = make.normal(4), make.normal(4)
        above, _ = barrier_curve(loss, p1, p2, n=3)
        torch.testing.assert_close(barrier_endpoint_predictor(loss, p1, p2), above[1])

    def test_error_is_the_fourth_derivative(self, make):
        centre, D = make.normal(4), make.normal(4)
        for t, tolerance in ((0.2, 0.05), (0.05, 0.005)):
            p1, p2 = centre - t * D / 2, centre + t * D / 2
            error = barrier_endpoint_predictor(smooth, p1, p2) - barrier_curve(smooth, p1, p2, n=3)[0][1]
            fourth = ((centre.sin() + 2.4) * (t * D) ** 4).sum()
            assert (error / (fourth / 128)).item() == pytest.approx(1, abs=tolerance)


class TestLayers:
    def test_names(self, make):
        assert layer_names(named(make)) == ["0", "last"]

    def test_replaces_whole_layers(self, make):
        p1, p2 = named(make), named(make)
        mixed = replace_layers(p1, p2, ["0"])
        assert torch.equal(mixed["0.weight"], p2["0.weight"])
        assert torch.equal(mixed["0.bias"], p2["0.bias"])
        assert torch.equal(mixed["last.weight"], p1["last.weight"])

    def test_refuses(self, make):
        p1 = named(make)
        with pytest.raises(ValueError, match="layers must be among 0, last; got 7"):
            replace_layers(p1, p1, ["7"])
        with pytest.raises(ValueError, match="same parameters"):
            replace_layers(p1, {"0.weight": p1["0.weight"]}, ["0"])
