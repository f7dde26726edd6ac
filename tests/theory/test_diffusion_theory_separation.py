"""Facts of the separation of data through noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.diffusion_theory_paths import energy_weight
from dlatlas.theory.diffusion_theory_separation import (
    TAIL_CONSTANT,
    data_separation,
    energy_gap_bound,
    mixture_separation,
    separation_bound,
)
from tests.examples import Example, Make


def normalised(x: torch.Tensor) -> torch.Tensor:
    return x / x.square().mean().sqrt()


def law(make: Make) -> dict:
    root = make.normal(3, 2, 2)
    return {"means": make.normal(3, 2), "covs": root @ root.mT, "weights": make.simplex(3)}


EXAMPLES = [
    Example(
        data_separation,
        lambda make: {"x": normalised(make.normal(5, 3)), "r": make.uniform(4, low=0.1), "noise": make.normal(10, 3)},
        differentiable=("r", "noise"),
    ),
    Example(
        mixture_separation,
        lambda make: {"r": make.uniform(4), "x1": make.normal(6, 2), "noise": make.normal(6, 2), **law(make)},
        differentiable=("r", "x1", "noise", "means"),
    ),
    Example(separation_bound, lambda make: {"r": make.uniform(4, low=0.1), "n": 5, "d": 9}, differentiable=("r",)),
    Example(energy_gap_bound, lambda make: {"n": 5, "d": 9}, vmap=False),
]

ANGLES = (torch.arange(4000, dtype=torch.float64) + 0.5) * math.pi / 8000
NODES, WEIGHTS = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(120))


def two_points(r):
    return (torch.tanh(r[:, None] * (r[:, None] + NODES)) ** 2) @ WEIGHTS / WEIGHTS.sum()


class TestSeparation:
    def test_gaussian_mixture_of_one_component(self):
        g = torch.Generator().manual_seed(0)
        x1, noise = torch.randn(2, 50, 3, generator=g, dtype=torch.float64)
        r = torch.tensor([0.0, 0.5, 2.0, 30.0]).double()
        one = torch.zeros(1, 3).double(), torch.eye(3).double()[None], torch.ones(1).double()
        torch.testing.assert_close(mixture_separation(r, x1, noise, *one), r**2 / (1 + r**2))

    def test_two_points(self):
        x = torch.tensor([[1.0], [-1.0]]).double()
        noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        r = torch.tensor([0.3, 1.0, 2.0]).double()
        torch.testing.assert_close(data_separation(x, r, noise), two_points(r), atol=3e-3, rtol=0)

    @given(st.integers(2, 12), st.integers(1, 30), st.integers(0, 100))
    @settings(max_examples=25, deadline=None)
    def test_bound_holds_for_any_points(self, n, d, seed):
        g = torch.Generator().manual_seed(seed)
        x = normalised(torch.randn(n, d, generator=g, dtype=torch.float64) ** 3)
        r = torch.tensor([0.2, 0.7, 1.5, 4.0]).double()
        noise = torch.randn(60 * n, d, generator=g, dtype=torch.float64)
        # A tenth is well beyond the error of the draws.
        assert (data_separation(x, r, noise) >= separation_bound(r, n=n, d=d) - 0.1).all()

    def test_tail_constant_is_an_upper_bound(self):
        u = torch.linspace(0, 6, 100_001, dtype=torch.float64)
        largest = (u**2 * torch.special.erfc(u / math.sqrt(2)) / 2).max().item()
        assert largest < TAIL_CONSTANT < largest + 1e-4

    @pytest.mark.parametrize(("n", "d"), [(2, 4), (3, 50), (20, 400), (100, 3)])
    def test_gap_bound_is_what_the_separation_bound_gives(self, n, d):
        h = energy_weight(ANGLES, (1 - 4 * TAIL_CONSTANT * (n - 1) / (ANGLES.tan() ** 2 * d)).clamp_min(0.0))
        gap = 2 * math.cos(h.mean().item() * math.pi / 2)
        assert gap == pytest.approx(energy_gap_bound(n, d), abs=3e-3)

    def test_refuses_data_that_are_not_normalised(self):
        with pytest.raises(ValueError, match="mean square of x"):
            data_separation(3 * torch.randn(20, 2), torch.ones(1), torch.randn(20, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: separation_bound(torch.tensor([0.0]), n=3, d=2), "r must"),
        (lambda: energy_gap_bound(0, 2), "n must"),
    ],
)
def test_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
