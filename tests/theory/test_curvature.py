"""Facts that the methods of theory/curvature must satisfy: opposing signals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, hessian

from dlatlas.theory.curvature import (
    group_gradient_cosine,
    opposing_groups,
    opposing_toy,
    opposing_toy_loss,
    opposing_toy_sharpening,
    sharpness,
)
from tests.examples import Example, Make


def quartic(theta: torch.Tensor) -> torch.Tensor:
    return (theta**4).sum() + 2 * (theta[0] - theta[1]) ** 2


def residuals(theta: torch.Tensor) -> torch.Tensor:
    return torch.stack([(theta - k).pow(2).sum() * (k + 1) for k in range(5)])


def groups_of(make: Make) -> dict:
    fixed = {"group_a": torch.tensor([0, 2], device=make.device), "group_b": torch.tensor([4], device=make.device)}
    return {"losses": residuals, "params": make.normal(3), **fixed}


EXAMPLES = [
    Example(
        sharpness,
        lambda make: {"loss": quartic, "params": make.normal(3), "start": make.normal(3), "m": 3},
        differentiable=("params",),
    ),
    Example(opposing_groups, lambda make: {"losses_t": make.normal(10), "losses_t1": make.normal(10), "k": 3}),
    Example(group_gradient_cosine, groups_of, differentiable=("params",)),
    Example(
        opposing_toy_loss, lambda make: {"weights": make.normal(3), "al": 6.0, "be": 4.0}, differentiable=("weights",)
    ),
    Example(
        opposing_toy,
        lambda make: {"weights": make.uniform(3), "al": 6.0, "be": 4.0, "eta": 0.02, "steps": 5},
        differentiable=("weights",),
    ),
    Example(
        opposing_toy_sharpening,
        lambda make: {"t": make.uniform(6), "al": 6.0, "be": 4.0, "c0": 0.1},
        differentiable=("t",),
    ),
]


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def enumerated_loss(w, alpha, beta, kappa, p):
    """All inputs with their probabilities: signal ±1, opposing feature 0 or ±√(α/p)."""
    c, b, bo = w
    large = math.sqrt(alpha / p)
    total = 0.0
    for x_s in (-1.0, 1.0):
        for x_o, chance in ((0.0, 1 - p), (large, p / 2), (-large, p / 2)):
            total = total + chance / 2 * 0.5 * (c * (b * x_s + bo * x_o) - beta * x_s - kappa * abs(x_o)) ** 2
    return total


class TestToy:
    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.floats(-2, 2), min_size=3, max_size=3),
        st.floats(0.1, 9),
        st.floats(0.1, 5),
        st.floats(-2, 2),
        st.floats(0.01, 1),
    )
    def test_loss_and_gradient_are_those_of_the_enumeration(self, weights, alpha, beta, kappa, p):
        w = doubles(*weights)

        def closed(w):
            return opposing_toy_loss(w, al=alpha, be=beta, ka=kappa)

        def literal(w):
            return enumerated_loss(w, alpha, beta, kappa, p)

        torch.testing.assert_close(closed(w), literal(w), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(grad(closed)(w), grad(literal)(w), rtol=1e-8, atol=1e-8)

    def test_sharpens_beyond_the_edge_and_settles_below(self):
        path = opposing_toy(doubles(0.1, 0.1, 1e-3), al=6.0, be=4.0, eta=0.12, steps=60)
        curvature = 6 * path[:, 0] ** 2
        assert 2 / 0.12 < 23.9 < curvature[20] < 24.01
        assert curvature[-1].item() == pytest.approx(14.43, abs=0.01)
        assert path[:, 2].abs().max() > 0.5

    def test_update_is_the_one_in_the_docstring(self):
        c, b, bo = 0.7, -0.4, 0.3
        after = opposing_toy(doubles(c, b, bo), al=5.0, be=2.0, eta=0.1, steps=1)[1]
        error = c * b - 2.0
        expected = doubles(c - 0.1 * (error * b + 5 * c * bo**2), b - 0.1 * error * c, (1 - 0.1 * 5 * c**2) * bo)
        torch.testing.assert_close(after, expected)
        slope = grad(lambda w: opposing_toy_loss(w, al=5.0, be=2.0))(doubles(c, b, bo))
        torch.testing.assert_close(after, doubles(c, b, bo) - 0.1 * slope)

    def test_flow_conserves(self):
        path = opposing_toy(doubles(0.9, 0.2, 0.6), al=3.0, be=2.0, eta=1e-4, steps=2000)
        kept = path[:, 0] ** 2 - path[:, 1] ** 2 - path[:, 2] ** 2
        assert (kept - kept[0]).abs().max() < 5e-3
        assert (path[-1] - path[0]).abs().max() > 0.1

    @pytest.mark.parametrize("eta", [0.02, 0.005])
    def test_sharpening_is_the_limit_of_small_steps(self, eta):
        steps = round(1.0 / eta)
        path = opposing_toy(doubles(0.2, 0.2, 0.0), al=6.0, be=3.0, eta=eta, steps=steps)
        flow = opposing_toy_sharpening(eta * torch.arange(steps + 1, dtype=torch.float64), al=6.0, be=3.0, c0=0.2)
        error = (6 * path[:, 0] ** 2 / flow - 1).abs().max()
        assert error < 8 * eta

    def test_sharpening_solves_the_logistic_equation(self):
        t = doubles(0.0, 0.3, 0.9).requires_grad_()
        value = opposing_toy_sharpening(t, al=6.0, be=3.0, c0=0.2)
        (slope,) = torch.autograd.grad(value.sum(), t)
        torch.testing.assert_close(slope, 2 * value * (3 - value / 6))
        assert value[0].item() == pytest.approx(6 * 0.04)
        late = opposing_toy_sharpening(doubles(50.0), al=6.0, be=3.0, c0=0.2)
        assert late.item() == pytest.approx(18)

    @pytest.mark.parametrize(("product", "grows"), [(0.9, False), (1.1, True)])
    def test_phase_boundary(self, product, grows):
        path = opposing_toy(doubles(1.0, 1.0, 1e-4), al=5.0, be=1.0, eta=2 * product / 5, steps=400)
        assert (path[:, 2].abs().max() > 0.01) == grows

    def test_bad_input(self):
        with pytest.raises(ValueError, match="al"):
            opposing_toy_loss(torch.ones(3), al=0.0, be=1.0)
        with pytest.raises(ValueError, match="eta"):
            opposing_toy(torch.ones(3), al=1.0, be=1.0, eta=0.0, steps=1)
        with pytest.raises(ValueError, match="c0"):
            opposing_toy_sharpening(torch.ones(3), al=1.0, be=1.0, c0=0.0)


class TestSharpness:
    def test_is_the_top_eigenvalue(self):
        theta = doubles(0.3, -0.2, 0.5)
        exact = torch.linalg.eigvalsh(hessian(quartic)(theta))[-1]
        torch.testing.assert_close(sharpness(quartic, theta, doubles(1.0, 0.4, -0.3), m=3), exact)

    def test_is_signed(self):
        value = sharpness(lambda t: -t.square().sum(), doubles(1.0, 2.0), doubles(1.0, 0.5), m=1)
        assert value.item() == pytest.approx(-2)


class TestGroups:
    def test_largest_changes_first(self):
        before, after = torch.zeros(6), torch.tensor([0.1, -3.0, 2.0, 0.0, 5.0, -1.0])
        up, down = opposing_groups(before, after, 2)
        assert up.tolist() == [4, 2]
        assert down.tolist() == [1, 5]

    def test_swapping_the_times_swaps_the_groups(self):
        g = torch.Generator().manual_seed(0)
        before, after = torch.randn(2, 20, generator=g)
        assert [x.tolist() for x in opposing_groups(before, after, 4)] == [
            x.tolist() for x in reversed(opposing_groups(after, before, 4))
        ]

    @pytest.mark.parametrize("k", [0, 4])
    def test_refuses_groups_that_overlap(self, k):
        with pytest.raises(ValueError, match="k must lie"):
            opposing_groups(torch.zeros(7), torch.ones(7), k)

    def test_cosine_of_opposite_groups(self):
        def losses(theta):
            return torch.stack([(theta[0] - 1) ** 2, (theta[0] + 1) ** 2, (theta[1] - 1) ** 2])

        at = torch.zeros(2)
        cosine = group_gradient_cosine(losses, at, torch.tensor([0]), torch.tensor([1]))
        assert cosine.item() == pytest.approx(-1)
        cosine = group_gradient_cosine(losses, at, torch.tensor([0]), torch.tensor([2]))
        assert cosine.item() == pytest.approx(0)
        cosine = group_gradient_cosine(losses, at, torch.tensor([0, 2]), torch.tensor([0]))
        assert cosine.item() == pytest.approx(math.sqrt(0.5))

    def test_cosine_takes_trees(self):
        def losses(p):
            return torch.stack([p["a"].sum(), -p["a"].sum() + p["b"]])

        params = {"a": torch.ones(2), "b": torch.tensor(0.0)}
        cosine = group_gradient_cosine(losses, params, torch.tensor([0]), torch.tensor([1]))
        assert cosine.item() == pytest.approx(-2 / math.sqrt(2 * 3))

    def test_refuses_an_empty_group(self):
        empty = torch.tensor([], dtype=torch.long)
        with pytest.raises(ValueError, match="group_b"):
            group_gradient_cosine(residuals, torch.zeros(3), torch.tensor([0]), empty)
