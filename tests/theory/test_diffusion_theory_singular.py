"""Facts of maximum likelihood for a law without a density."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.diffusion_theory_singular import degenerate_bound, mixture_generator_loglik, perturbed_objective
from tests.examples import Example

EXAMPLES = [
    Example(
        mixture_generator_loglik,
        lambda make: {"x": make.normal(5, 2), "f_of_z": make.normal(7, 2), "s": make.uniform(1, low=0.4)[0]},
        differentiable=("x", "f_of_z", "s"),
    ),
    Example(
        perturbed_objective,
        lambda make: {
            "x": make.normal(5, 2),
            "noise": make.normal(5, 2),
            "f_of_z": make.normal(7, 2),
            "log_s": make.uniform(1, low=-0.7)[0],
            "st": 0.2,
            "s_bounds": (0.1, 2.0),
        },
        differentiable=("x", "noise", "f_of_z", "log_s"),
    ),
    Example(degenerate_bound, lambda make: {"s": make.uniform(4, low=0.1), "M": 5, "D": 2}, differentiable=("s",)),
]


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_the_log_of_the_mixture_density():
    x, centres, s = doubles(4, 3), doubles(6, 3, seed=1), 0.7
    normal = torch.distributions.MultivariateNormal(centres, s**2 * torch.eye(3).double())
    expected = torch.stack([normal.log_prob(v).exp().mean().log() for v in x])
    torch.testing.assert_close(mixture_generator_loglik(x, centres, torch.tensor(s).double()), expected)


def test_constant_generator_is_a_gaussian():
    x, c = doubles(4, 2), doubles(1, 2, seed=2)
    normal = torch.distributions.MultivariateNormal(c[0], 0.25 * torch.eye(2).double())
    got = mixture_generator_loglik(x, c.expand(9, 2), torch.tensor(0.5).double())
    torch.testing.assert_close(got, normal.log_prob(x))


def test_linear_generator_by_quadrature():
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    x, slope, s = doubles(5, 1), 0.8, torch.tensor(0.5).double()
    parts = [
        w * mixture_generator_loglik(x, torch.tensor([[slope * z]]).double(), s).exp()
        for z, w in zip(nodes, weights / weights.sum(), strict=True)
    ]
    expected = torch.distributions.Normal(0 * s, (slope**2 + s**2).sqrt()).log_prob(x[:, 0])
    torch.testing.assert_close(sum(parts).log(), expected, atol=1e-8, rtol=0)


@given(st.floats(1e-3, 1.0), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_memorising_is_above_the_bound_which_diverges(s, D):
    x, s = doubles(6, D), torch.tensor(s).double()
    floor = degenerate_bound(s, M=6, D=D)
    assert mixture_generator_loglik(x, x, s).mean() >= floor - 1e-7
    torch.testing.assert_close(degenerate_bound(s / 10, M=6, D=D) - floor, torch.tensor(D * math.log(10)).double())


def test_perturbation_is_added_and_the_scale_is_bounded():
    x, noise, centres = doubles(5, 2), doubles(5, 2, seed=3), doubles(7, 2, seed=4)
    for log_s, s in ((math.log(0.5), 0.5), (-9.0, 0.1), (9.0, 2.0)):
        got = perturbed_objective(x, noise, centres, torch.tensor(log_s).double(), st=0.3, s_bounds=(0.1, 2.0))
        expected = -mixture_generator_loglik(x + 0.3 * noise, centres, torch.tensor(s).double()).mean()
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"st": -1.0}, "st"),
        ({"s_bounds": (0.0, 1.0)}, "lower bound"),
        ({"s_bounds": (0.1, 0.05)}, "upper bound"),
        ({"st": 0.05, "s_bounds": (0.5, 1.0)}, "lower bound of s"),
        ({"x": 100 * doubles(5, 2)}, "root mean square"),
    ],
)
def test_refuses_bad_input(change, message):
    given = {"x": doubles(5, 2), "noise": doubles(5, 2), "f_of_z": doubles(7, 2), "log_s": torch.tensor(0.0).double()}
    with pytest.raises(ValueError, match=message):
        perturbed_objective(**{**given, "st": 0.2, "s_bounds": (0.1, 2.0), **change})
