"""Facts that the methods of theory/scaling_laws must satisfy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from dlatlas.ops.power_laws import fit_power_law, power_law
from dlatlas.theory.scaling_laws import (
    ScalingLaw,
    critical_batch_size,
    fit_scaling_law,
    optimal_allocation,
    predict_trajectory,
    steps_for_loss,
)
from tests.examples import Example, Make

LAW = ScalingLaw(N_c=2e3, a_N=0.31, B_star=60.0, inverse_a_B=1.4, S_c=25.0, a_S=0.43)
DOUBLE = {"dtype": torch.float64}


def synthetic(make: Make) -> dict:
    N = torch.tensor([300.0, 1000.0, 5000.0], dtype=make.dtype, device=make.device) * make.uniform(3, low=0.9, high=1.1)
    B = torch.tensor([4.0, 16.0, 64.0], dtype=make.dtype, device=make.device)
    converged = power_law(N, LAW.N_c, LAW.a_N)
    levels = converged[:, None] + make.uniform(1, 5, low=0.3, high=0.9)
    steps = steps_for_loss(levels[:, :, None], N[:, None, None], B, LAW)
    return {"N": N, "converged": converged, "B": B, "levels": levels, "steps": steps}


EXAMPLES = [
    Example(critical_batch_size, lambda make: {"L": make.uniform(4, low=0.5, high=3.0), "law": LAW}, ("L",)),
    Example(
        predict_trajectory,
        lambda make: {
            "N": make.uniform(4, low=1e2, high=1e4),
            "S": make.uniform(4, low=10.0, high=1e3),
            "B": make.uniform(4, low=1.0, high=99.0),
            "law": LAW,
        },
        differentiable=("N", "S", "B"),
    ),
    Example(
        steps_for_loss,
        lambda make: {
            "L": make.uniform(4, low=3.0, high=5.0),
            "N": make.uniform(4, low=1e3, high=1e4),
            "B": make.uniform(4, low=1.0, high=99.0),
            "law": LAW,
        },
        differentiable=("L", "N", "B"),
    ),
    Example(fit_scaling_law, synthetic, differentiable=("steps",)),
    Example(optimal_allocation, lambda make: {"C": make.uniform(3, low=1e6, high=1e8), "law": LAW}, ("C",)),
]


def doubles(*values):
    return torch.tensor(values, **DOUBLE)


@given(
    N=st.floats(10, 1e7),
    S=st.floats(1, 1e6),
    B=st.floats(0.1, 1e5),
    inverse=st.floats(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_trajectory_is_the_root(N, S, B, inverse):
    law = LAW._replace(inverse_a_B=inverse)
    floor = (law.N_c / N) ** law.a_N
    expected = brentq(
        lambda L: L - floor - (law.S_c * (1 + law.B_star / L**inverse / B) / S) ** law.a_S, floor, 1e9, rtol=1e-13
    )
    got = predict_trajectory(doubles(N), doubles(S), doubles(B), law)
    torch.testing.assert_close(got, doubles(expected), rtol=1e-9, atol=0)


def test_trajectory_falls_in_everything():
    N, S, B = (torch.logspace(1, 4, 25, **DOUBLE) for _ in range(3))
    for L in (
        predict_trajectory(N, doubles(100.0), doubles(8.0), LAW),
        predict_trajectory(doubles(500.0), S, doubles(8.0), LAW),
        predict_trajectory(doubles(500.0), doubles(100.0), B, LAW),
    ):
        assert (L.diff() < 0).all()


def test_gradient_is_that_of_finite_differences():
    points = [doubles(700.0), doubles(90.0), doubles(8.0)]
    inputs = [p.clone().requires_grad_() for p in points]
    assert torch.autograd.gradcheck(lambda N, S, B: predict_trajectory(N, S, B, LAW), inputs)


def test_infinite_batch_leaves_the_plain_sum():
    L = predict_trajectory(doubles(700.0), doubles(90.0), doubles(torch.inf), LAW)
    torch.testing.assert_close(L, doubles((2e3 / 700) ** 0.31 + (25 / 90) ** 0.43))


def test_noise_free_curves_give_all_constants():
    N, B = doubles(300, 1000, 3000, 9000), doubles(4, 16, 64, 256)
    converged = power_law(N, LAW.N_c, LAW.a_N)
    levels = converged[:, None] + torch.linspace(0.1, 0.9, 9, **DOUBLE)
    steps = steps_for_loss(levels[:, :, None], N[:, None, None], B, LAW)
    for reference in range(4):
        found = fit_scaling_law(N, converged, B, levels, steps, reference=reference)
        for got, expected in zip(found, LAW, strict=True):
            assert float(got) == pytest.approx(expected, rel=1e-6)


def test_critical_batch_that_shrinks_is_held_constant():
    N, B = doubles(300, 1000, 3000), doubles(4, 16, 64)
    converged = power_law(N, LAW.N_c, LAW.a_N)
    levels = converged[:, None] + torch.linspace(0.1, 0.9, 9, **DOUBLE)
    excess = levels - converged[:, None]
    shrinking = 10 * levels**0.5
    steps = 25 * excess[..., None] ** -2 * (1 + shrinking[..., None] / B)
    found = fit_scaling_law(N, converged, B, levels, steps, reference=1)
    assert found.inverse_a_B == 0
    torch.testing.assert_close(found.B_star, shrinking[1].log().mean().exp())


def test_levels_below_the_fitted_floor_are_refused():
    example = synthetic(Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0)))
    low = example["converged"][:, None] * torch.linspace(0.8, 0.95, 5, **DOUBLE)
    with pytest.raises(ValueError, match="offset"):
        fit_scaling_law(**{**example, "levels": low})


def test_allocation_beats_its_neighbours_and_has_the_exponents():
    C = doubles(1e7, 1e9, 1e11)
    best = optimal_allocation(C, LAW)
    torch.testing.assert_close(6 * best.N * best.B * best.S, C)
    size = power_law(best.N, LAW.N_c, LAW.a_N)
    torch.testing.assert_close((best.L - size) / size, torch.full((3,), LAW.a_N / LAW.a_S, **DOUBLE))
    for factor in (0.9, 1.1):
        N = factor * best.N
        # The loss that this size reaches for the same C is where its cost crosses C; at best.L it must cost more.
        cost = 6 * N * best.B * steps_for_loss(best.L, N, best.B, LAW)
        assert (cost > C).all()
    a_C = 1 / (1 / LAW.a_N + LAW.inverse_a_B + 1 / LAW.a_S)
    exponents = (a_C / LAW.a_N, a_C * LAW.inverse_a_B, a_C / LAW.a_S, -a_C)
    for value, expected in zip(best, exponents, strict=True):
        assert -fit_power_law(C, value).exponent.item() == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [{"a_N": -0.1}, {"a_S": 0.0}, {"inverse_a_B": -1.0}, {"N_c": float("nan")}])
def test_law_without_one_root_is_refused(wrong):
    one = doubles(10.0)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        predict_trajectory(one, one, one, LAW._replace(**wrong))


def test_senseless_points_are_refused():
    one = doubles(10.0)
    with pytest.raises(ValueError, match="S must"):
        predict_trajectory(one, -one, one, LAW)
    with pytest.raises(ValueError, match="L - "):
        steps_for_loss(doubles(1e-3), one, one, LAW)
    with pytest.raises(ValueError, match="L must"):
        critical_batch_size(-one, LAW)
    with pytest.raises(ValueError, match="C must"):
        optimal_allocation(-one, LAW)
