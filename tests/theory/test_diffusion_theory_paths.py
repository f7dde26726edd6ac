"""Facts of Gaussian probability paths and their kinetic energy."""

import math

import numpy as np
import pytest
import torch

from dlatlas.theory.diffusion_theory_paths import (
    Path,
    cond_ot_path,
    cosine_path,
    energy_weight,
    flow_matching_loss,
    kinetic_energy,
    kinetic_optimal_path,
    mixture_velocity,
    vp_path,
)
from tests.examples import Example, Make


def times(count, dtype=torch.float64, end=1.0):
    return (torch.arange(count, dtype=dtype) + 0.5) * end / count


def law(make: Make) -> dict:
    root = make.normal(3, 2, 2)
    return {"means": make.normal(3, 2), "covs": root @ root.mT, "weights": make.simplex(3)}


def along(path, make: Make, count: int) -> Path:
    return Path(*(v.to(make.device) for v in path(times(count, make.dtype))))


EXAMPLES = [
    Example(cond_ot_path, lambda make: {"t": make.uniform(4)}, differentiable=("t",)),
    Example(cosine_path, lambda make: {"t": make.uniform(4)}, differentiable=("t",)),
    Example(vp_path, lambda make: {"t": make.uniform(4, high=0.9)}, differentiable=("t",)),
    Example(
        energy_weight,
        lambda make: {"theta": make.uniform(4, low=0.2, high=0.8), "separation": make.uniform(4, low=0.7)},
        differentiable=("theta", "separation"),
    ),
    Example(
        kinetic_energy,
        lambda make: {"path": along(cosine_path, make, 6), "separation": make.uniform(6)},
        differentiable=("separation",),
    ),
    Example(
        kinetic_optimal_path,
        lambda make: {"t": make.uniform(5, low=0.1, high=0.9), "h": make.uniform(8, low=0.2, high=0.9)},
        differentiable=("t", "h"),
    ),
    Example(
        mixture_velocity,
        lambda make: {"x": make.normal(5, 2), "path": along(cond_ot_path, make, 5), **law(make)},
        differentiable=("x", "means"),
    ),
    Example(
        flow_matching_loss,
        lambda make: {
            "velocity": torch.sin,
            "x0": make.normal(5, 2),
            "x1": make.normal(5, 2),
            "path": along(cond_ot_path, make, 5),
        },
        differentiable=("x0", "x1"),
    ),
]

ANGLES = times(4000, end=math.pi / 2)
NODES, WEIGHTS = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(120))


def two_points(r):
    return (torch.tanh(r[:, None] * (r[:, None] + NODES)) ** 2) @ WEIGHTS / WEIGHTS.sum()


@pytest.mark.parametrize("family", [cond_ot_path, cosine_path, vp_path])
def test_derivatives_and_ends(family):
    t = torch.linspace(0.05, 0.9, 7, dtype=torch.float64)
    for value, slope in ((0, 2), (1, 3)):
        for k in range(7):
            expected = torch.func.grad(lambda u, value=value: family(u[None])[value][0])(t[k])
            torch.testing.assert_close(family(t)[slope][k], expected)
    ends = family(torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64))
    torch.testing.assert_close(ends.a, torch.tensor([0.0, 1.0]).double(), atol=7e-3, rtol=0)
    torch.testing.assert_close(ends.s, torch.tensor([1.0, 0.0]).double(), atol=1e-4, rtol=0)


def test_two_point_facts():
    h = energy_weight(ANGLES, two_points(ANGLES.tan()))
    t = times(4000)
    best, energy = kinetic_optimal_path(t, h)
    assert h.mean().item() * math.pi / 2 == pytest.approx(0.691, abs=5e-4)
    assert energy.item() == pytest.approx(0.459, abs=5e-4)
    for path, value in ((best, 0.459), (cond_ot_path(t), 0.982), (cosine_path(t), 0.869)):
        assert kinetic_energy(path, two_points(path.a / path.s)).item() == pytest.approx(value, abs=6e-4)
    assert energy >= 2 - 2 * math.sqrt(2 / math.pi)


def test_optimal_path_moves_at_constant_speed_and_its_derivatives_fit():
    h = energy_weight(ANGLES, two_points(ANGLES.tan()))
    t = times(500)
    path, energy = kinetic_optimal_path(t, h)
    a, s, da, ds = path
    speed = da**2 + ds**2 - (1 - two_points(a / s)) * ((da * s - a * ds) / s) ** 2
    torch.testing.assert_close(speed, energy.expand(500), atol=2e-3, rtol=0)
    # At its start the angle turns at infinite speed, since two points are hard to tell apart there.
    inside = slice(25, 475)
    torch.testing.assert_close(a.diff()[inside] * 500, ((da[1:] + da[:-1]) / 2)[inside], atol=2e-2, rtol=0)
    ends, _ = kinetic_optimal_path(torch.tensor([0.0, 1.0], dtype=torch.float64), h)
    torch.testing.assert_close(torch.stack([ends.a, ends.s]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double())


def test_separated_data_give_straight_lines_and_gaussian_data_cost_nothing():
    t = times(100)
    path, energy = kinetic_optimal_path(t, torch.ones(1000).double())
    torch.testing.assert_close(path.a, t, atol=1e-6, rtol=0)
    torch.testing.assert_close(path.s, 1 - t, atol=1e-6, rtol=0)
    assert energy.item() == pytest.approx(2.0)
    h = energy_weight(ANGLES, ANGLES.sin() ** 2)
    assert kinetic_optimal_path(t, h)[1].item() < 1e-9


@pytest.mark.parametrize("family", [cond_ot_path, cosine_path])
def test_gaussian_energy_is_the_direct_one(family):
    a, s, da, ds = path = family(times(300))
    velocity = (a * da + s * ds) / (a**2 + s**2)
    direct = (velocity**2 * (a**2 + s**2)).mean()
    torch.testing.assert_close(kinetic_energy(path, a**2 / (a**2 + s**2)), direct)


class TestVelocity:
    def test_is_the_conditional_mean(self):
        """On two points in the plane: the mean of the pair velocities with their posterior weights."""
        points = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]).double()
        x = torch.tensor([[0.4, -0.2]]).double()
        path = Path(*(torch.tensor([v]).double() for v in (0.6, 0.5, 1.1, -0.9)))
        no_spread = torch.zeros(2, 2, 2).double(), torch.full((2,), 0.5).double()
        chance = (-(x - 0.6 * points).square().sum(1) / (2 * 0.25)).softmax(0)
        pair = 1.1 * points - 0.9 * (x - 0.6 * points) / 0.5
        torch.testing.assert_close(mixture_velocity(x, path, points, *no_spread)[0], chance @ pair)

    def test_minimises_flow_matching(self):
        g = torch.Generator().manual_seed(2)
        x0, x1 = torch.randn(2, 200_000, 2, generator=g, dtype=torch.float64)
        path = Path(*(v.expand(200_000) for v in (torch.tensor(u).double() for u in (0.6, 0.5, 1.1, -0.9))))
        one = torch.zeros(1, 2).double(), torch.eye(2).double()[None], torch.ones(1).double()

        def shifted(eps):
            return flow_matching_loss(lambda x: mixture_velocity(x, path, *one) + eps * x.tanh(), x0, x1, path)

        losses = [shifted(eps).item() for eps in (-0.1, 0.0, 0.1)]
        assert losses[1] < min(losses[0], losses[2])
        assert losses[2] - losses[0] == pytest.approx(0.0, abs=5e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cond_ot_path(torch.tensor([1.5])), "t must"),
        (lambda: vp_path(torch.tensor([1.0])), "t must"),
        (lambda: energy_weight(torch.tensor([0.0]), torch.ones(1)), "theta"),
        (lambda: kinetic_energy(cond_ot_path(torch.tensor([1.0])), torch.ones(1)), "s must"),
        (lambda: kinetic_optimal_path(torch.tensor([0.5]), torch.tensor([2.0])), "h must"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
